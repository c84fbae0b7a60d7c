// The blocks of a KV pool on several GPUs, each of which holds its own KV heads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cuda_kv_storage.h"

namespace qllm::cuda {

class TeamKvStorage final : public KvStorage {
 public:
  /// One storage a rank, in the order of ranks.
  explicit TeamKvStorage(std::vector<std::unique_ptr<CudaKvStorage>> ranks);

  int ranks() const { return static_cast<int>(ranks_.size()); }
  const CudaKvStorage& rank(int r) const { return *ranks_[static_cast<size_t>(r)]; }

  /// Of all ranks: a block's bytes are those of rank 0, of rank 1, ...
  int64_t block_bytes() const override { return block_bytes_; }
  std::string layout() const override;
  void open(int32_t block, bool fresh) override;
  void copy(int32_t from, int32_t to) noexcept override;
  void read(int32_t block, std::span<std::byte> out) const noexcept override;
  void write(int32_t block, std::span<const std::byte> in) noexcept override;

 private:
  std::vector<std::unique_ptr<CudaKvStorage>> ranks_;
  int64_t block_bytes_ = 0;
};

}  // namespace qllm::cuda
