// Blocks of keys and values of which the host holds the first layers and the device the others.
#pragma once

#include <memory>

#include "backend/kv_storage.h"

namespace qllm::hybrid {

/// The parts of a step, and of a storage.
inline constexpr int kHostPart = 0;
inline constexpr int kDevicePart = 1;

class HybridStorage final : public KvStorage {
 public:
  /// Both have the same number of blocks; `host_layers` and `device_layers` are named in layout(),
  /// so that a saved sequence is read by the same split alone.
  HybridStorage(std::unique_ptr<KvStorage> host, int64_t host_layers,
                std::unique_ptr<KvStorage> device, int64_t device_layers);

  KvStorage* part(int index) override;
  int64_t block_bytes() const override { return host_->block_bytes() + device_->block_bytes(); }
  std::string layout() const override;
  void open(int32_t block, bool fresh) override;
  void copy(int32_t from, int32_t to) noexcept override;
  void read(int32_t block, std::span<std::byte> out) const noexcept override;
  void write(int32_t block, std::span<const std::byte> in) noexcept override;

 private:
  std::unique_ptr<KvStorage> host_, device_;
  int64_t host_layers_, device_layers_;
};

}  // namespace qllm::hybrid
