#include "ceilings.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/read_memory.h"

namespace qllm::cuda {
namespace {

constexpr int kRounds = 5;

/// Seconds of the fastest of a few runs of `work`, after one that does not count.
template <class Work>
double best_seconds(const Stream& stream, Work work) {
  work();
  Event begin(true), end(true);
  double best = 0;
  for (int i = 0; i < kRounds; ++i) {
    begin.record(stream);
    work();
    end.record(stream);
    end.synchronize();
    const double seconds = end.since_ms(begin) / 1e3;
    best = i == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

double rate(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0.0; }

/// Throws nothing where memory is short: then there is no figure.
template <class Measure>
double unless_memory_is_short(Measure measure) {
  try {
    return measure();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::out_of_memory) throw;
    return 0.0;
  }
}

}  // namespace

double measure_read_gbps(int64_t bytes, const DeviceInfo& device, const Stream& stream) {
  return unless_memory_is_short([&] {
    const int64_t whole = std::max<int64_t>(bytes / 16, 1) * 16;
    const DeviceBuffer data(whole, "the read ceiling");
    const int64_t sum_bytes = 4 * int64_t{read_memory_blocks(device.multiprocessors)};
    const DeviceBuffer sums(sum_bytes, "the read ceiling");
    clear_device(data.data(), whole, stream);
    clear_device(sums.data(), sum_bytes, stream);
    const double seconds = best_seconds(stream, [&] {
      read_memory(data.data(), whole, device.multiprocessors, sums.as<unsigned>(), stream.get());
    });
    return rate(static_cast<double>(whole), seconds) / 1e9;
  });
}

double measure_gemm_tops(GemmKind kind, const DeviceInfo& device, const Stream& stream) {
  // So large that it fills the device: 8,448 on an H100.
  const int64_t size = 64 * int64_t{device.multiprocessors};
  const int64_t in = kind == GemmKind::int8 ? 1 : 2, out = kind == GemmKind::int8 ? 4 : 2;
  return unless_memory_is_short([&] {
    LtGemm gemm(kind);
    const DeviceBuffer x(size * size * in, "the ceiling of products");
    const DeviceBuffer w(size * size * in, "the ceiling of products");
    const DeviceBuffer y(size * size * out, "the ceiling of products");
    clear_device(x.data(), x.bytes(), stream);
    clear_device(w.data(), w.bytes(), stream);
    const double seconds = best_seconds(stream, [&] {
      gemm.multiply(x.data(), size, w.data(), size, size, size, size, y.data(), stream);
    });
    const auto n = static_cast<double>(size);
    return rate(2.0 * n * n * n, seconds) / 1e12;
  });
}

double measure_upload_gbps(const Stream& stream) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  return unless_memory_is_short([&] {
    const PinnedBuffer host(kBytes);
    const DeviceBuffer device(kBytes, "the copy ceiling");
    const double seconds =
        best_seconds(stream, [&] { copy_to_device(device.data(), host.data(), kBytes, stream); });
    return rate(static_cast<double>(kBytes), seconds) / 1e9;
  });
}

}  // namespace qllm::cuda
