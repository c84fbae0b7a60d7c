#include "cpu_backend.h"

#include <fmt/format.h>

#include <limits>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "bandwidth.h"
#include "core/error.h"
#include "cpu_kv_storage.h"
#include "cpu_weights.h"
#include "kernel_rate.h"
#include "kernels/dispatch.h"
#include "kernels/dot.h"
#include "kernels/vec.h"
#include "onednn/onednn_linear.h"
#include "pack_linear.h"
#include "peak.h"
#include "plan.h"
#include "speeds.h"
#include "topology.h"
#include "weight_nodes.h"
#include "worker_pool.h"

namespace qllm::cpu {
namespace {

constexpr Isa kTiers[] = {Isa::amx, Isa::avx512vnni, Isa::avxvnni, Isa::avx2,
                          Isa::scalar};  // best first

}  // namespace

Isa choose_isa(const std::string& name) {
  if (name.empty()) return best_isa();
  for (Isa isa : kTiers) {
    if (isa_name(isa) != name) continue;
    require(isa_available(isa), ErrorCode::unsupported,
            "isa {}: this machine does not run it; the best it has is {}", name,
            isa_name(best_isa()));
    return isa;
  }
  fail(ErrorCode::invalid_argument,
       "isa {}: known tiers are scalar, avx2, avxvnni, avx512vnni, amx", name);
}

namespace {

std::vector<KernelChoice> kernel_choices(Isa isa, bool onednn) {
  std::vector<KernelChoice> choices;
  for (const DispatchRow& row : dispatch_table()) {
    if (row.isa != isa || (row.kernel == nullptr && !onednn)) continue;
    choices.push_back({row.m_from, row.n_from, row.k_from,
                       row.kernel != nullptr ? row.kernel->name : "onednn", row.note});
  }
  return choices;
}

std::unique_ptr<Topology> detect_topology(const BackendOptions& options) {
  TopologyOptions t;
  t.threads = options.threads;
  t.cpus = options.cpus;
  t.numa = options.numa;
  t.node = options.numa_node;
  return Topology::detect(t);
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options)
      : options_(options),
        isa_(choose_isa(options.isa)),
        vec_(vec_kernels(isa_)),
        topology_(detect_topology(options)),
        pool_(*topology_),
        onednn_(onednn_accepts(isa_)) {
    if (topology_->mixed_cores()) speeds_ = measure_speeds(pool_, *topology_);
  }

  BackendInfo info() const override {
    BackendInfo info;
    info.name = "cpu";
    for (Isa isa : kTiers) {
      if (isa_available(isa)) info.isa.emplace_back(isa_name(isa));
    }
    info.isa_used = isa_name(isa_);
    info.kernels = kernel_choices(isa_, onednn_);
    info.workers = pool_.count();
    info.numa_nodes = topology_->numa_nodes();
    info.packages = topology_->packages();
    info.cores = topology_->cores();
    for (const WorkerSlot& slot : topology_->workers()) {
      info.cpus.push_back(slot.cpu);
      info.worker_nodes.push_back(slot.numa_node);
    }
    info.notes = topology_->notes();
    if (!topology_->binds()) info.warnings.push_back("cpu: " + info.notes.back());
    info.notes.push_back(onednn_ && onednn_tokens_from(isa_) < std::numeric_limits<int64_t>::max()
                             ? fmt::format("oneDNN takes matmuls of {} tokens and more on the "
                                           "packed weights",
                                           onednn_tokens_from(isa_))
                             : "own kernels for all token counts: oneDNN has no fast u8 x s8 "
                               "matmul on this tier");
    return info;
  }

  std::shared_ptr<const Weights> load(const Graph& graph,
                                      std::shared_ptr<const TensorSource> source,
                                      const ProgressFn& progress) override {
    LoadContext context{&pool_, topology_.get(), &vec_, options_.memory, {}, {}};
    context.speeds = speeds_;
    context.shard_memory.large_pages = options_.large_pages;
    context.shard_memory.hugetlb = options_.memory == MemoryMode::hugetlb;
    context.shard_memory.lock = options_.lock_memory;
    context.shard_memory.log = options_.log;
    auto weights =
        std::make_shared<CpuWeights>(graph, options_.scheme, std::move(source), context, progress);
    if (options_.log) {
      options_.log(LogLevel::info,
                   fmt::format("cpu: {} MiB of weights for {} workers, memory {}, {} MiB of it on "
                               "large pages",
                               weights->bytes() >> 20, pool_.count(), weights->memory(),
                               weights->large_page_bytes() >> 20));
    }
    return weights;
  }

  bool maps_packed() const override { return cpu::maps_packed(options_.memory, *topology_); }

  void pack(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
            const PackFn& take) override {
    pack_linear(weight, layout, source, vec_, pool_, take);
  }

  int64_t kv_block_bytes(const KvShape& shape) const override {
    return cpu::kv_block_bytes(shape, options_.kv_format);
  }

  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) override {
    return std::make_unique<CpuKvStorage>(shape, options_.kv_format, blocks, *topology_,
                                          options_.large_pages);
  }

  std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                const PlanLimits& limits) override {
    auto own = std::dynamic_pointer_cast<const CpuWeights>(std::move(weights));
    require(own != nullptr, ErrorCode::invalid_argument, "cpu: weights of another backend");
    const CpuContext context{topology_.get(), &pool_, &vec_, isa_, options_.large_pages, onednn_};
    return compile_plan(context, graph, std::move(own), limits);
  }

  PlacementInfo placement(const Weights& weights) const override {
    const auto* own = dynamic_cast<const CpuWeights*>(&weights);
    require(own != nullptr, ErrorCode::invalid_argument, "cpu: weights of another backend");
    PlacementInfo info = describe_placement(nodes_of_shards(*own, pool_.count()), *topology_);
    info.policy = to_string(options_.numa);
    return info;
  }

  double measure_read_gbps(int64_t bytes) override {
    const std::lock_guard lock(bandwidth_mutex_);
    if (!bandwidth_ || bandwidth_bytes_ != bytes) {
      bandwidth_.emplace(pool_, *topology_, bytes);
      bandwidth_bytes_ = bytes;
    }
    return bandwidth_->measure();
  }

  double measure_peak_tops() override {
    // oneDNN takes the best tier that the machine has, whichever our kernels were told to take.
    return cpu::measure_peak_tops(pool_, int8_peak_kernel(isa_, onednn_));
  }

  double measure_peak_f32_tflops() override {
    return cpu::measure_peak_tops(pool_, f32_peak_kernel(isa_));
  }

  double measure_kernel_tops(const WeightFormat& format, int64_t tokens) override {
    return cpu::measure_kernel_tops(pool_, isa_, onednn_, format, tokens);
  }

  WorkerPool& pool() { return pool_; }

 private:
  BackendOptions options_;
  Isa isa_;
  const VecKernels& vec_;
  std::unique_ptr<Topology> topology_;
  WorkerPool pool_;
  bool onednn_;
  std::vector<double> speeds_;  // of the workers, where they differ
  std::mutex bandwidth_mutex_;
  std::optional<ReadBandwidth> bandwidth_;
  int64_t bandwidth_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  require(
      options.scheme.kind != SchemeKind::fp32, ErrorCode::unsupported,
      "device cpu: scheme fp32: the cpu computes with quantized weights, the reference in fp32");
  return std::make_unique<CpuBackend>(options);
}

WorkerPool& worker_pool(Backend& backend) {
  auto* const own = dynamic_cast<CpuBackend*>(&backend);
  require(own != nullptr, ErrorCode::invalid_argument, "cpu: workers of another backend");
  return own->pool();
}

}  // namespace qllm::cpu
