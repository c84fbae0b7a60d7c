#include "cuda_kv_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/math.h"
#include "cuda_error.h"
#include "kernels/rope_kv_write.h"

namespace qllm::cuda {
namespace {

// How blocks lie, in files too: count up where kv_layout.h changes.
constexpr int kLayoutVersion = 1;
constexpr int64_t kSlabBytes = int64_t{64} << 20;

/// Throws unless the blocks have a size that can be addressed.
void check_size(const KvShape& shape, KvFormat format, int64_t blocks) {
  uint64_t bytes = 1;
  const auto fits = [&](int64_t factor) {
    return factor > 0 && checked_mul(bytes, static_cast<uint64_t>(factor), &bytes) &&
           bytes <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  };
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const bool ok = shape.n_layers <= kMost && shape.n_kv_heads <= kMost && shape.head_dim > 0;
  require(!ok || shape.head_dim <= kKvMaxHeadDim, ErrorCode::unsupported,
          "KV cache: head dimension {}: cuda takes at most {}", shape.head_dim, kKvMaxHeadDim);
  KvGeometry head;
  head.format = format;
  head.head_dim = static_cast<int32_t>(ok ? shape.head_dim : 1);
  require(ok && fits(head.head_bytes()) && fits(shape.n_layers) && fits(shape.n_kv_heads) &&
              fits(blocks),
          ErrorCode::invalid_argument,
          "KV cache: {} layers x {} heads x {} in {} blocks of {} tokens is no size",
          shape.n_layers, shape.n_kv_heads, shape.head_dim, blocks, kKvBlockTokens);
}

}  // namespace

KvGeometry kv_geometry(const KvShape& shape, KvFormat format) {
  check_size(shape, format, 1);
  return {format, static_cast<int32_t>(shape.n_layers), static_cast<int32_t>(shape.n_kv_heads),
          static_cast<int32_t>(shape.head_dim)};
}

int64_t kv_slab_blocks(int64_t block_bytes, int64_t left) {
  return std::min(left, std::max<int64_t>(1, kSlabBytes / block_bytes));
}

CudaKvStorage::CudaKvStorage(const KvShape& shape, KvFormat format, int64_t blocks, int device,
                             cudaStream_t stream)
    : geometry_(kv_geometry(shape, format)), device_(device), stream_(stream) {
  check_size(shape, format, blocks);
  table_.resize(static_cast<size_t>(blocks));
}

CudaKvStorage::~CudaKvStorage() {
  cudaSetDevice(device_);
  for (std::byte* slab : slabs_) cudaFree(slab);
}

int64_t CudaKvStorage::device_bytes() const {
  const std::lock_guard lock(mutex_);
  return taken_blocks_ * block_bytes();
}

std::string CudaKvStorage::layout() const {
  return fmt::format("cuda {} {} blocks of {}", kLayoutVersion, to_string(geometry_.format),
                     kKvBlockTokens);
}

/// Zeroed memory for `blocks` blocks; null where the device has no room.
std::byte* CudaKvStorage::take_slab(int64_t blocks) {
  const auto bytes = static_cast<size_t>(blocks * block_bytes());
  void* slab = nullptr;
  const cudaError_t error = cudaMalloc(&slab, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // this one does not stay
    return nullptr;
  }
  check(error, "memory for keys and values");
  slabs_.push_back(static_cast<std::byte*>(slab));
  check(cudaMemsetAsync(slab, 0, bytes, stream_), "memory for keys and values");
  check(cudaStreamSynchronize(stream_), "memory for keys and values");
  return slabs_.back();
}

/// A zeroed block.
std::byte* CudaKvStorage::take() {
  const std::lock_guard lock(mutex_);
  if (free_blocks_ == 0) {
    slabs_.reserve(slabs_.size() + 1);
    int64_t count =
        kv_slab_blocks(block_bytes(), static_cast<int64_t>(table_.size()) - taken_blocks_);
    free_ = take_slab(count);
    if (free_ == nullptr && count > 1) free_ = take_slab(count = 1);
    require(free_ != nullptr, ErrorCode::out_of_memory,
            "KV cache: the device has no room for a block of {} bytes beside the {} blocks that it "
            "holds",
            block_bytes(), taken_blocks_);
    free_blocks_ = count;
    taken_blocks_ += count;
  }
  std::byte* const block = free_;
  free_ += block_bytes();
  --free_blocks_;
  return block;
}

// `fresh` says nothing that the table does not: a block whose first opening failed is fresh no
// more, and has no memory.
void CudaKvStorage::open(int32_t block, bool /*fresh*/) {
  check(cudaSetDevice(device_), "cudaSetDevice");
  std::byte*& at = table_[static_cast<size_t>(block)];
  if (at == nullptr) {
    at = take();
    return;
  }
  check(cudaMemsetAsync(at, 0, static_cast<size_t>(block_bytes()), stream_), "clearing a KV block");
  check(cudaStreamSynchronize(stream_), "clearing a KV block");
}

void CudaKvStorage::copy(int32_t from, int32_t to) noexcept {
  cudaSetDevice(device_);
  cudaMemcpyAsync(address(to), address(from), static_cast<size_t>(block_bytes()),
                  cudaMemcpyDeviceToDevice, stream_);
  cudaStreamSynchronize(stream_);
}

void CudaKvStorage::read(int32_t block, std::span<std::byte> out) const noexcept {
  cudaSetDevice(device_);
  cudaMemcpyAsync(out.data(), address(block), static_cast<size_t>(block_bytes()),
                  cudaMemcpyDeviceToHost, stream_);
  cudaStreamSynchronize(stream_);
}

void CudaKvStorage::write(int32_t block, std::span<const std::byte> in) noexcept {
  cudaSetDevice(device_);
  cudaMemcpyAsync(address(block), in.data(), static_cast<size_t>(block_bytes()),
                  cudaMemcpyHostToDevice, stream_);
  try {
    make_kv_finite(geometry_, address(block), stream_);
  } catch (const Error&) {  // of the device, which stays
  }
  cudaStreamSynchronize(stream_);
}

}  // namespace qllm::cuda
