#include "engine/model_digest.h"

#include <fmt/format.h>

#include <set>
#include <string_view>
#include <vector>

#include "core/checksum.h"

namespace qllm {
namespace {

class Digest {
 public:
  template <typename T>
  void add(std::span<const T> values) {
    value_ = checksum(std::as_bytes(values), value_);
  }
  void add(std::string_view text) { add(std::span(text.data(), text.size())); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

void add_constants(Digest& digest, const Op& op) {
  if (const auto* rope = std::get_if<RopeKvWriteOp>(&op)) {
    digest.add(std::span<const float>(rope->inv_freq));
  }
}

void add_weight(Digest& digest, const Weight& weight, const TensorSource& source) {
  digest.add(std::string_view(weight.name));
  std::vector<float> row(static_cast<size_t>(weight.k));
  if (weight.role == WeightRole::vector) {
    read_weight_vector(source, weight, row.data());
    digest.add(std::span<const float>(row));
    return;
  }
  for (const int64_t i : std::set<int64_t>{0, weight.n / 2, weight.n - 1}) {
    read_weight_rows(source, weight, i, 1, row.data());
    digest.add(std::span<const float>(row));
  }
}

}  // namespace

std::string digest_form(const Scheme& scheme, const Rotations& rotations) {
  return fmt::format("{} rotated {:d}{:d}{:d}", to_string(scheme), rotations.residual,
                     rotations.heads, rotations.ffn);
}

uint64_t model_digest(const Graph& graph, const std::string& form, const TensorSource& source) {
  Digest digest;
  digest.add(std::string_view(dump(graph)));
  digest.add(std::string_view(form));
  for (const Op& op : graph.ops) add_constants(digest, op);
  for (const Weight& weight : graph.weights) add_weight(digest, weight, source);
  return digest.value();
}

}  // namespace qllm
