// oneDNN primitives of a plan, made once per distinct tile and worker, shared by all its linears.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "onednn/onednn_linear.h"

namespace qllm::cpu {

/// Outputs of a tile: with 512 tokens its int32 sums take 512 KiB, which a core with VNNI keeps in
/// its L2 (1 MiB and more) until the epilogue reads them.
inline constexpr int64_t kOnednnColumns = 256;

class OnednnTiles {
 public:
  /// For steps of min_tokens to max_tokens; one of fewer runs as many as the least prepared.
  OnednnTiles(int workers, int64_t min_tokens, int64_t max_tokens);

  /// Prepares what a shard of n outputs and k inputs needs: full tiles and the remainder.
  void prepare(int64_t n, int64_t k, int64_t ldx);
  /// Rows that x and acc must have room for when a step carries m tokens.
  int64_t padded_rows(int64_t m) const;
  /// Runs one tile; false where oneDNN refuses. args.ldacc = args.n.
  bool run(const DotArgs& args, int worker) noexcept;

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t>;  // n, k, ldx
  std::vector<int64_t> token_counts_;
  std::vector<std::map<Key, OnednnLinear>> by_worker_;
};

}  // namespace qllm::cpu
