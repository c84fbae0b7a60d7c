#include "upload.h"

#include <algorithm>

#include "block_source.h"
#include "parallel.h"

namespace qllm::cuda {
namespace {

constexpr int64_t kHalfBytes = int64_t{32} << 20;

}  // namespace

Uploader::Uploader(const Stream& stream) : stream_(stream) {
  for (int i = 0; i < 2; ++i) halves_.push_back({{}, {}, Event(false), false});
}

Uploader::Half& Uploader::next_half(int64_t bytes) {
  Half& half = halves_[turn_];
  turn_ = (turn_ + 1) % halves_.size();
  if (half.used) half.done.synchronize();
  if (half.host.bytes() < bytes) {
    half.host = PinnedBuffer(bytes);
    half.device = DeviceBuffer(bytes, "staging of weights");
  }
  half.used = true;
  return half;
}

void Uploader::send(const Weight& weight, const PackedLinear* packed, const TensorSource& source,
                    const std::vector<PackedRun>& runs, const RunPiece& piece, int term,
                    std::byte* codes, float* scale) {
  const PackedRun& run = runs[piece.run];
  constexpr int64_t kScales = kBlockN * (sizeof(float) + sizeof(int32_t));
  const int64_t column = run.column_bytes();
  const int64_t columns = piece.n / kBlockN;
  const int64_t step = std::clamp<int64_t>(kHalfBytes / column, 1, columns);
  for (int64_t from = 0; from < columns; from += step) {
    const int64_t count = std::min(step, columns - from);
    Half& half = next_half(step * (column + kScales));
    std::byte* const host = half.host.data();
    auto* const scales = reinterpret_cast<float*>(host + step * column);
    auto* const sums = reinterpret_cast<int32_t*>(scales + step * kBlockN);
    in_parallel(count, [&](int64_t i) {
      const int64_t row = piece.row + (from + i) * kBlockN;
      const BlockMemory to{host + i * column, scales + i * kBlockN, sums + i * kBlockN};
      if (packed != nullptr) {
        copy_block(weight.name, *packed, piece.run, term, row, to);
      } else {
        pack_block(weight, run, term, source, row, to);
      }
    });
    if (run.in_groups()) {
      copy_to_device(codes + from * column, host, count * column, stream_);
    } else {
      copy_to_device(half.device.data(), host, count * column, stream_);
      unpack_rows(half.device.as<int8_t>(), count * kBlockN, run.k_padded,
                  reinterpret_cast<int8_t*>(codes + from * column), stream_.get());
      copy_to_device(scale + from * kBlockN, scales,
                     count * kBlockN * static_cast<int64_t>(sizeof(float)), stream_);
    }
    half.done.record(stream_);
    source.release();
  }
}

}  // namespace qllm::cuda
