#include "kernels/dispatch.h"

#include <algorithm>
#include <limits>

namespace qllm::cpu {
DotChoice choose_dot(Isa isa, int64_t m, int64_t n, int64_t k, bool onednn) {
  DotChoice choice = {nullptr, false, 0};
  for (const DispatchRow& row : dispatch_table()) {
    if (row.isa != isa || m < row.m_from || n < row.n_from || k < row.k_from) continue;
    if (row.kernel == nullptr && !onednn) continue;
    choice.onednn = row.kernel == nullptr;
    if (row.kernel != nullptr) choice.kernel = row.kernel;
    choice.sum_bytes = row.sum_kib * 1024;
  }
  return choice;
}

int64_t onednn_tokens_from(Isa isa) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const DispatchRow& row : dispatch_table()) {
    if (row.isa == isa && row.kernel == nullptr) least = std::min(least, row.m_from);
  }
  return least;
}

int64_t most_sum_bytes(Isa isa) {
  int64_t most = 0;
  for (const DispatchRow& row : dispatch_table()) {
    if (row.isa == isa) most = std::max(most, row.sum_kib * 1024);
  }
  return most;
}

const DotKernel& select_dot_kernel(Isa isa, int64_t m, int64_t n, int64_t k) {
  return *choose_dot(isa, m, n, k, false).kernel;
}

}  // namespace qllm::cpu
