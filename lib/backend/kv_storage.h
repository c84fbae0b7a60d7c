// The bytes of the blocks of a KV pool, as a device holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace qllm {

/// The shape of the keys and values of one token.
struct KvShape {
  int64_t n_layers = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
};

/// What is no part of a step but all of it.
inline constexpr int kWholeStep = -1;

/// Blocks 0, 1, ... of kKvBlockTokens tokens of all layers and KV heads. Calls for different blocks
/// may come from several threads at once.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
  /// What part `index` of a step works on, where several devices share the layers; null where there
  /// is no such part.
  virtual KvStorage* part(int index) { return index == kWholeStep ? this : nullptr; }

  /// Bytes of one block.
  virtual int64_t block_bytes() const = 0;
  /// How bytes lie inside a block, with all that they depend on but the shape: equal names of equal
  /// shapes read each other's blocks.
  virtual std::string layout() const = 0;

  /// Makes a block ready to be written: all zeros. `fresh`: it was never used before. Throws
  /// out_of_memory.
  virtual void open(int32_t block, bool fresh) = 0;
  /// Copies all bytes of a block to another, which is open.
  virtual void copy(int32_t from, int32_t to) noexcept = 0;
  /// All bytes of a block to `out`, and back; both are block_bytes() long.
  virtual void read(int32_t block, std::span<std::byte> out) const noexcept = 0;
  virtual void write(int32_t block, std::span<const std::byte> in) noexcept = 0;
};

}  // namespace qllm
