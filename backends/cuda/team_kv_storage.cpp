#include "team_kv_storage.h"

#include <fmt/format.h>

#include <utility>

namespace qllm::cuda {

TeamKvStorage::TeamKvStorage(std::vector<std::unique_ptr<CudaKvStorage>> ranks)
    : ranks_(std::move(ranks)) {
  for (const auto& rank : ranks_) block_bytes_ += rank->block_bytes();
}

std::string TeamKvStorage::layout() const {
  return fmt::format("{}, heads of {} GPUs", ranks_.front()->layout(), ranks());
}

// Where one rank has no room the others' memory stays theirs: opened again, it is cleared.
void TeamKvStorage::open(int32_t block, bool fresh) {
  for (const auto& rank : ranks_) rank->open(block, fresh);
}

void TeamKvStorage::copy(int32_t from, int32_t to) noexcept {
  for (const auto& rank : ranks_) rank->copy(from, to);
}

void TeamKvStorage::read(int32_t block, std::span<std::byte> out) const noexcept {
  for (const auto& rank : ranks_) {
    const auto bytes = static_cast<size_t>(rank->block_bytes());
    rank->read(block, out.first(bytes));
    out = out.subspan(bytes);
  }
}

void TeamKvStorage::write(int32_t block, std::span<const std::byte> in) noexcept {
  for (const auto& rank : ranks_) {
    const auto bytes = static_cast<size_t>(rank->block_bytes());
    rank->write(block, in.first(bytes));
    in = in.subspan(bytes);
  }
}

}  // namespace qllm::cuda
