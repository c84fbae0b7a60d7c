#include "row_share.h"

#include <algorithm>

#include "core/math.h"

namespace qllm::cuda {
namespace {

/// Appends a piece whose rows begin at `at` in the share.
void append(const PackedRun& source, const RunPiece& piece, int64_t at,
            std::vector<SharedRun>* out) {
  const bool goes_on = !out->empty() && out->back().run.end() == at &&
                       out->back().run.format == source.format &&
                       out->back().run.k_padded == source.k_padded;
  if (!goes_on) out->push_back({{source.format, at, 0, source.k_padded}, {}});
  out->back().run.n += piece.n;
  out->back().pieces.push_back(piece);
}

}  // namespace

int64_t rows_in(const RowShare& share) {
  int64_t rows = 0;
  for (const RowRange& range : share) rows += range.end - range.begin;
  return rows;
}

std::vector<SharedRun> share_runs(const std::vector<PackedRun>& runs, const RowShare& share) {
  std::vector<SharedRun> out;
  int64_t at = 0;
  for (const RowRange& range : share) {
    const int64_t end = round_up(range.end, kBlockN);
    for (size_t r = 0; r < runs.size(); ++r) {
      const int64_t from = std::max(range.begin, runs[r].n0), to = std::min(end, runs[r].end());
      if (from < to) append(runs[r], {r, from, to - from}, at + from - range.begin, &out);
    }
    at += end - range.begin;
  }
  return out;
}

}  // namespace qllm::cuda
