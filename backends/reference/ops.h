// The ops of graph.h on float32 rows, as written there.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "graph/graph.h"

namespace qllm::reference {

/// What is written is rounded to what the cpu or a GPU would store.
enum class KvRounding : uint8_t { none, bf16, int8, f16 };

/// Keys and values as float32. A block is [layer][k, v][token][n_kv_heads * head_dim], made when it
/// is first used.
class FloatKvStorage final : public KvStorage {
 public:
  FloatKvStorage(const KvShape& shape, KvRounding rounding, int64_t blocks);
  KvRounding rounding() const { return rounding_; }
  float* k(int32_t block, int64_t layer, int64_t row) const {
    return at(block) + (2 * layer * kKvBlockTokens + row) * width_;
  }
  float* v(int32_t block, int64_t layer, int64_t row) const {
    return k(block, layer, row + kKvBlockTokens);
  }

  int64_t block_bytes() const override { return size_ * static_cast<int64_t>(sizeof(float)); }
  std::string layout() const override;
  void open(int32_t block, bool fresh) override;
  void copy(int32_t from, int32_t to) noexcept override;
  void read(int32_t block, std::span<std::byte> out) const noexcept override;
  void write(int32_t block, std::span<const std::byte> in) noexcept override;

 private:
  float* at(int32_t block) const { return blocks_[static_cast<size_t>(block)].get(); }

  int64_t width_;
  int64_t size_;  // floats of a block
  KvRounding rounding_;
  std::vector<std::unique_ptr<float[]>> blocks_;
};

/// The rows of one sequence.
class FloatKv {
 public:
  FloatKv(const FloatKvStorage& storage, std::span<const int32_t> blocks)
      : storage_(storage), blocks_(blocks) {}
  KvRounding rounding() const { return storage_.rounding(); }
  float* k(int64_t layer, int64_t token) const {
    return storage_.k(block(token), layer, token % kKvBlockTokens);
  }
  float* v(int64_t layer, int64_t token) const {
    return storage_.v(block(token), layer, token % kKvBlockTokens);
  }

 private:
  int32_t block(int64_t token) const {
    return blocks_[static_cast<size_t>(token / kKvBlockTokens)];
  }
  const FloatKvStorage& storage_;
  std::span<const int32_t> blocks_;
};

/// A linear's weights in one of the three forms.
struct LinearWeights {
  int64_t n = 0;
  int64_t k = 0;
  int64_t group = 0;                // inputs of a group; 0: none
  int64_t k_padded = 0;             // in groups: a multiple of group
  std::vector<float> f32;           // [n, k], or empty
  std::vector<int8_t> s8;           // [n, k], or empty
  std::vector<int8_t> second;       // [n, k] where a row has a second term, else empty
  std::vector<int16_t> codes;       // in groups: q - zero [n, k_padded]
  std::vector<float> scale;         // [n] beside s8, [n, k_padded/group] in groups
  std::vector<float> second_scale;  // [n]; 0 for a row of one term
  std::vector<float> minimum;       // [n, k_padded/group] in groups
};

/// `gain` may be null: all ones.
void rms_norm(const float* x, const float* gain, float eps, int64_t n, float* y);
/// y[m, n] of m rows; bias and residual may be null.
void linear(const LinearWeights& w, const float* x, int64_t m, const float* bias,
            const float* residual, float* y);
/// One token: rotates q of qkv into `q`, writes k and v to the cache at `position`.
void rope_kv_write(const RopeKvWriteOp& op, const float* qkv, int64_t position, float* q,
                   const FloatKv& kv);
/// One token and head over positions [0, length).
void attend(const AttentionOp& op, const float* q, int64_t head, int64_t length, const FloatKv& kv,
            float* out);
/// `hadamard`: SwiGluOp's.
void swiglu(const float* gate_up, int64_t d_ff, int64_t hadamard, float* y);

}  // namespace qllm::reference
