// Which int8 kernel computes a matmul: the table of dispatch_table.inc, filled by measurement.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/dot.h"

namespace qllm::cpu {

/// A row holds from m_from tokens, n_from outputs and k_from inputs on, until a later row of its
/// tier does too.
struct DispatchRow {
  Isa isa;
  int64_t m_from;
  int64_t n_from;
  int64_t k_from;
  const DotKernel* kernel;  // null: oneDNN
  int64_t sum_kib;          // int32 sums that one call computes: they wait in L2 for the epilogue
  const char* note;         // where the row comes from: "measured: ..." or "reasoned: ..."
};

std::span<const DispatchRow> dispatch_table();

struct DotChoice {
  const DotKernel* kernel;  // ours; where oneDNN is chosen, what to fall back to
  bool onednn;
  int64_t sum_bytes;
};

/// For m tokens, n outputs and k inputs of one worker. `onednn`: false leaves its rows out, as
/// where it has no fast kernel. Never a null kernel for an available tier.
DotChoice choose_dot(Isa isa, int64_t m, int64_t n, int64_t k, bool onednn);

/// The least m for which the table names oneDNN on this tier; the largest int64 where it never
/// does.
int64_t onednn_tokens_from(Isa isa);

/// The largest sum_bytes of a tier.
int64_t most_sum_bytes(Isa isa);

}  // namespace qllm::cpu
