#include "onednn/onednn_tiles.h"

#include <algorithm>

namespace qllm::cpu {

OnednnTiles::OnednnTiles(int workers, int64_t min_tokens, int64_t max_tokens)
    : by_worker_(static_cast<size_t>(workers)) {
  // Powers of two: a step wastes less than half of its rows, and four or five primitives do.
  for (int64_t m = min_tokens; m < max_tokens; m *= 2) token_counts_.push_back(m);
  token_counts_.push_back(max_tokens);
}

void OnednnTiles::prepare(int64_t n, int64_t k, int64_t ldx) {
  for (int64_t columns : {std::min(n, kOnednnColumns), n % kOnednnColumns}) {
    if (columns == 0) continue;
    for (auto& tiles : by_worker_) {
      const Key key{columns, k, ldx};
      if (tiles.count(key) != 0) continue;
      tiles.emplace(key, OnednnLinear({columns, k, ldx, columns}, token_counts_));
    }
  }
}

int64_t OnednnTiles::padded_rows(int64_t m) const {
  const auto it = std::lower_bound(token_counts_.begin(), token_counts_.end(), m);
  return it == token_counts_.end() ? 0 : *it;
}

bool OnednnTiles::run(const DotArgs& args, int worker) noexcept {
  auto& tiles = by_worker_[static_cast<size_t>(worker)];
  const auto it = tiles.find(Key{args.n, args.k, args.ldx});
  return it != tiles.end() && it->second.run(args);
}

}  // namespace qllm::cpu
