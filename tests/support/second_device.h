// A device to share a model with: another backend that has, so it says, memory of its own.
#pragma once

#include <memory>
#include <utility>

#include "backend/backend.h"
#include "core/error.h"

namespace qllm::test {

/// Passes all on to `inner`.
class SecondDevice final : public Backend {
 public:
  /// `memory`: what it says is free; `takes`: weights beyond so many bytes are refused.
  SecondDevice(std::unique_ptr<Backend> inner, int64_t memory, int64_t takes = int64_t{1} << 40)
      : inner_(std::move(inner)), memory_(memory), takes_(takes) {}

  BackendInfo info() const override {
    BackendInfo info = inner_->info();
    info.name = "second";
    return info;
  }
  std::shared_ptr<const Weights> load(const Graph& graph,
                                      std::shared_ptr<const TensorSource> source,
                                      const ProgressFn& progress) override {
    auto weights = inner_->load(graph, std::move(source), progress);
    if (weights->bytes() > takes_) {
      throw Error(ErrorCode::out_of_memory, "second: no memory for the weights");
    }
    return weights;
  }
  int64_t kv_block_bytes(const KvShape& shape) const override {
    return inner_->kv_block_bytes(shape);
  }
  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) override {
    return inner_->make_kv_storage(shape, blocks);
  }
  std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                const PlanLimits& limits) override {
    return inner_->compile(graph, std::move(weights), limits);
  }
  int64_t memory_available() const override { return memory_; }
  std::shared_ptr<float[]> host_buffer(int64_t count) override {
    buffer_values = count;
    return Backend::host_buffer(count);
  }
  double measure_read_gbps(int64_t) override { return read_gbps; }
  double measure_peak_tops() override { return peak_tops; }

  double read_gbps = 100;
  double peak_tops = 10;
  int64_t buffer_values = 0;  // of the last host_buffer

 private:
  std::unique_ptr<Backend> inner_;
  int64_t memory_, takes_;
};

}  // namespace qllm::test
