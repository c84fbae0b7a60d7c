// The blocks of a KV pool in a device's memory, which is taken in slabs as blocks are first used.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "backend/kv_format.h"
#include "backend/kv_storage.h"
#include "kernels/kv_layout.h"

namespace qllm::cuda {

class CudaKvStorage final : public KvStorage {
 public:
  /// Works on `stream` of `device` and waits for it, so what other streams do later sees it; what
  /// they did before must have ended, as it has after Plan::execute. Throws invalid_argument for a
  /// shape that is none or more bytes than there are addresses, unsupported for a head_dim beyond
  /// kKvMaxHeadDim. Takes no memory of the device yet.
  CudaKvStorage(const KvShape& shape, KvFormat format, int64_t blocks, int device,
                cudaStream_t stream);
  ~CudaKvStorage() override;
  CudaKvStorage(const CudaKvStorage&) = delete;
  CudaKvStorage& operator=(const CudaKvStorage&) = delete;

  const KvGeometry& geometry() const { return geometry_; }
  /// Where a block lies on the device: it stays there. Precondition: it was opened.
  std::byte* address(int32_t block) const { return table_[static_cast<size_t>(block)]; }
  /// Taken from the device so far.
  int64_t device_bytes() const;

  int64_t block_bytes() const override { return geometry_.block_bytes(); }
  std::string layout() const override;
  /// Throws out_of_memory where the device has no room for it.
  void open(int32_t block, bool fresh) override;
  // What a device error leaves undone here shows at its next launch: such errors stay.
  void copy(int32_t from, int32_t to) noexcept override;
  void read(int32_t block, std::span<std::byte> out) const noexcept override;
  /// Makes what comes from outside finite (kv_layout.h).
  void write(int32_t block, std::span<const std::byte> in) noexcept override;

 private:
  std::byte* take();
  std::byte* take_slab(int64_t blocks);

  KvGeometry geometry_;
  int device_;
  cudaStream_t stream_;
  std::vector<std::byte*> table_;  // [blocks]; null: never opened
  mutable std::mutex mutex_;       // of what stands below
  std::vector<std::byte*> slabs_;
  std::byte* free_ = nullptr;  // of the last slab
  int64_t free_blocks_ = 0;
  int64_t taken_blocks_ = 0;  // in all slabs
};

/// The geometry of a shape. Throws as CudaKvStorage does.
KvGeometry kv_geometry(const KvShape& shape, KvFormat format);

/// Blocks of the next slab where `left` are to come: 64 MiB of them, one at least.
int64_t kv_slab_blocks(int64_t block_bytes, int64_t left);

}  // namespace qllm::cuda
