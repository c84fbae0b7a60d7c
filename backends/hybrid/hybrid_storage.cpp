#include "hybrid/hybrid_storage.h"

#include <fmt/format.h>

#include <utility>

namespace qllm::hybrid {

HybridStorage::HybridStorage(std::unique_ptr<KvStorage> host, int64_t host_layers,
                             std::unique_ptr<KvStorage> device, int64_t device_layers)
    : host_(std::move(host)),
      device_(std::move(device)),
      host_layers_(host_layers),
      device_layers_(device_layers) {}

KvStorage* HybridStorage::part(int index) {
  if (index == kHostPart) return host_.get();
  if (index == kDevicePart) return device_.get();
  return index == kWholeStep ? this : nullptr;
}

std::string HybridStorage::layout() const {
  return fmt::format("{}: {} + {}: {}", host_layers_, host_->layout(), device_layers_,
                     device_->layout());
}

void HybridStorage::open(int32_t block, bool fresh) {
  host_->open(block, fresh);
  device_->open(block, fresh);
}

void HybridStorage::copy(int32_t from, int32_t to) noexcept {
  host_->copy(from, to);
  device_->copy(from, to);
}

void HybridStorage::read(int32_t block, std::span<std::byte> out) const noexcept {
  const auto hosts = static_cast<size_t>(host_->block_bytes());
  host_->read(block, out.first(hosts));
  device_->read(block, out.subspan(hosts));
}

void HybridStorage::write(int32_t block, std::span<const std::byte> in) noexcept {
  const auto hosts = static_cast<size_t>(host_->block_bytes());
  host_->write(block, in.first(hosts));
  device_->write(block, in.subspan(hosts));
}

}  // namespace qllm::hybrid
