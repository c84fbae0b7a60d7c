// The FFN of ffn_model.h on the cpu backend: loaded, compiled, timed.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "bounds.h"
#include "ffn_model.h"

namespace qllm::bench {

struct FfnOptions {
  FfnShape shape;
  int threads = 0;    // 0: one per physical core
  int hadamard = 64;  // under int8; 0: none
  int64_t most_tokens = 512;
};

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The FFN under one scheme, loaded and compiled.
class Ffn {
 public:
  Ffn(const FfnOptions& wanted, const Scheme& scheme) : shape_(wanted.shape) {
    BackendOptions options;
    options.threads = wanted.threads;
    options.scheme = scheme;
    backend_ = make_backend("cpu", options);
    // Rotation is of row-wise int8: weights in groups keep their grid.
    const Graph graph = ffn_graph(shape_, scheme.kind == SchemeKind::int8 ? wanted.hadamard : 0);
    const auto begin = std::chrono::steady_clock::now();
    weights_ = backend_->load(graph, std::make_shared<FfnSource>(graph, shape_), {});
    load_s_ = seconds_since(begin);
    const int64_t most = wanted.most_tokens;
    plan_ = backend_->compile(graph, weights_, {most, 1});
    kv_ = backend_->make_kv_cache({1, 1, 64}, most);  // no op of the graph touches it
    for (int64_t i = 0; i < most; ++i) tokens_.push_back(static_cast<int32_t>(i % kFfnTokens));
    out_.resize(static_cast<size_t>(shape_.d_model));
  }

  /// Seconds of one step of M tokens: the mean over about `least_s`, at least one.
  double seconds(int64_t m, double least_s) {
    const double warm = steps(m, 1);
    if (warm > 5 * least_s) return warm;  // long enough to have warmed up by itself
    const int count = std::max(1, static_cast<int>(least_s / warm));
    return steps(m, count);
  }

  Work fixed() const { return {static_cast<double>(weights_->bytes()), 0}; }
  /// Of one token: its input and output in float, two operations a weight.
  Work each() const {
    return {8.0 * static_cast<double>(shape_.d_model), 2.0 * static_cast<double>(shape_.weights())};
  }
  Work work(int64_t m) const {
    const auto count = static_cast<double>(m);
    return {fixed().bytes + count * each().bytes, count * each().operations};
  }
  Ceilings ceilings(int64_t bytes) {
    return {backend_->measure_read_gbps(bytes), backend_->measure_peak_tops()};
  }
  double load_s() const { return load_s_; }
  BackendInfo info() const { return backend_->info(); }

 private:
  double steps(int64_t m, int count) {
    const BatchSlice slice{kv_.get(), 0, m};
    const auto last = static_cast<int32_t>(m - 1);
    const Batch batch{{tokens_.data(), static_cast<size_t>(m)}, {&slice, 1}, {&last, 1}};
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) {
      kv_->truncate(0);
      plan_->execute(batch, out_);
    }
    return seconds_since(begin) / count;
  }

  FfnShape shape_;
  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Weights> weights_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<KvCache> kv_;
  std::vector<int32_t> tokens_;
  std::vector<float> out_;
  double load_s_ = 0;
};

}  // namespace qllm::bench
