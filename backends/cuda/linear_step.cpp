#include "linear_step.h"

#include <algorithm>

namespace qllm::cuda {
namespace {

void run_gemm(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
              const LinearContext& context, const Stream& stream) {
  for (const Int8Run* run : {&w.first, &w.second}) {
    if (run->n == 0) continue;
    context.gemm->multiply(x.q, x.ld, run->w, run->ld, m, run->n, run->ld, context.sums, stream);
    scale_sums(context.sums, *run, run == &w.second, x, m, y, stream.get());
  }
}

}  // namespace

void run_linear(const DeviceLinear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                const LinearContext& context, const Stream& stream) {
  if (m == 0) return;
  LinearKernel kernel = choose_int8_kernel(m);
  if (context.gemm == nullptr && kernel == LinearKernel::gemm) kernel = LinearKernel::tiles;
  for (const Int8Linear& part : w.int8) {
    if (kernel == LinearKernel::stream) {
      int8_stream(part, x, m, y, context.multiprocessors, stream.get());
    } else if (kernel == LinearKernel::tiles) {
      int8_tiles(part, x, m, y, stream.get());
    } else {
      run_gemm(part, x, m, y, context, stream);
    }
  }
  for (const GroupRun& run : w.groups) {
    const bool few = choose_group_kernel(m) == LinearKernel::stream;
    (few ? group_stream : group_tiles)(run, x, m, y, stream.get());
  }
}

bool leaves_sums(const DeviceLinear& w, int64_t m, const LinearContext& context) {
  return context.gemm != nullptr && choose_int8_kernel(m) == LinearKernel::gemm &&
         w.int8.size() == 1 && w.int8[0].second.n == 0;
}

void run_sums(const DeviceLinear& w, const QuantRows& x, int64_t m, const LinearContext& context,
              const Stream& stream) {
  const Int8Run& run = w.int8[0].first;
  context.gemm->multiply(x.q, x.ld, run.w, run.ld, m, run.n, run.ld, context.sums, stream);
}

int64_t gemm_sums(const DeviceLinear& w, int64_t m) {
  if (choose_int8_kernel(m) != LinearKernel::gemm) return 0;
  int64_t n = 0;
  for (const Int8Linear& part : w.int8) n = std::max({n, part.first.n, part.second.n});
  return m * n;
}

}  // namespace qllm::cuda
