#include "hybrid/hybrid_backend.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "graph/cut.h"
#include "hybrid/hybrid_plan.h"
#include "hybrid/hybrid_storage.h"
#include "hybrid/split.h"

namespace qllm::hybrid {
namespace {

/// How many layers each has.
struct Split {
  int64_t host = 0;
  int64_t device = 0;

  bool in_two() const { return host > 0 && device > 0; }
};

/// One of the two may be null.
struct HybridWeights final : Weights {
  Split split;
  std::shared_ptr<const Weights> host, device;
  std::string host_name, device_name;

  int64_t bytes() const override { return sum(&Weights::bytes); }
  int64_t bytes_per_step() const override { return sum(&Weights::bytes_per_step); }
  std::string memory() const override {
    // A device with memory of its own has nothing to tell.
    const std::string hosts = host ? host->memory() : "";
    return hosts.empty() && device ? device->memory() : hosts;
  }
  std::vector<WeightsPart> parts() const override {
    if (!split.in_two()) return {};
    return {{host_name, split.host, host->bytes(), host->bytes_per_step()},
            {device_name, split.device, device->bytes(), device->bytes_per_step()}};
  }

 private:
  int64_t sum(int64_t (Weights::*figure)() const) const {
    return (host ? (*host.*figure)() : 0) + (device ? (*device.*figure)() : 0);
  }
};

/// Progress of one part as progress of the whole.
ProgressFn part_of(const ProgressFn& progress, double begin, double end) {
  if (!progress) return {};
  return [progress, begin, end](std::string_view stage, double fraction) {
    return progress(stage, begin + fraction * (end - begin));
  };
}

/// Of one token's linears; those of output rows alone (the LM head) are left out.
double linear_ops(const Graph& graph) {
  double ops = 0;
  for (const Op& op : graph.ops) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (linear == nullptr || graph.value(linear->out).rows != Rows::tokens) continue;
    const Weight& w = graph.weight(linear->weight);
    ops += 2.0 * static_cast<double>(w.n) * static_cast<double>(w.k);
  }
  return ops;
}

class HybridBackend final : public Backend {
 public:
  HybridBackend(std::unique_ptr<Backend> host, std::unique_ptr<Backend> device,
                const BackendOptions& options)
      : host_(std::move(host)),
        device_(std::move(device)),
        options_(options),
        host_name_(host_->info().name),
        device_name_(device_->info().name) {}

  BackendInfo info() const override;
  std::shared_ptr<const Weights> load(const Graph& graph,
                                      std::shared_ptr<const TensorSource> source,
                                      const ProgressFn& progress) override;
  std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                const PlanLimits& limits) override;
  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) override;
  int64_t kv_block_bytes(const KvShape& shape) const override;
  int64_t kv_blocks_that_fit(const KvShape& shape) const override;
  PlacementInfo placement(const Weights& weights) const override;

  // Where only one of them maps, what the other copies is compared twice.
  bool maps_packed() const override { return host_->maps_packed() || device_->maps_packed(); }
  void pack(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
            const PackFn& take) override {
    host_->pack(weight, layout, source, take);
  }
  int64_t memory_available() const override { return device_->memory_available(); }
  std::vector<Backend*> parts() override {
    if (!split_ || !split_->in_two()) return {};
    return {host_.get(), device_.get()};
  }

  double measure_read_gbps(int64_t bytes) override {
    return together(step_bytes_, [bytes](Backend& b) { return b.measure_read_gbps(bytes); });
  }
  double measure_peak_tops() override {
    return together(token_ops_, [](Backend& b) { return b.measure_peak_tops(); });
  }
  double measure_peak_f32_tflops() override {
    return together(token_ops_, [](Backend& b) { return b.measure_peak_f32_tflops(); });
  }
  double measure_peak_f16_tflops() override {
    return together(token_ops_, [](Backend& b) { return b.measure_peak_f16_tflops(); });
  }
  double measure_kernel_tops(const WeightFormat& format, int64_t tokens) override {
    return together(token_ops_, [&](Backend& b) { return b.measure_kernel_tops(format, tokens); });
  }
  double measure_host_gbps() override { return device_->measure_host_gbps(); }

 private:
  Split choose_split(const Graph& graph, const TensorSource& source) const;
  /// Before a load: as the options say, where they do.
  Split split_of(const KvShape& shape) const;
  std::shared_ptr<const Weights> load_on_device(const Graph& graph,
                                                std::shared_ptr<const TensorSource> source,
                                                const ProgressFn& progress);
  std::string split_note() const;

  /// The rate at which both work one behind the other, each its own amount at its own rate. The
  /// device's as long as nothing is loaded.
  template <typename Rate>
  double together(const std::array<double, 2>& amounts, const Rate& rate) {
    const std::array<Backend*, 2> backends = {host_.get(), device_.get()};
    double total = 0, time = 0;
    for (size_t i = 0; i < backends.size(); ++i) {
      if (amounts[i] <= 0) continue;
      const double one = rate(*backends[i]);
      if (one <= 0) return 0;
      total += amounts[i];
      time += amounts[i] / one;
    }
    return time > 0 ? total / time : rate(*device_);
  }

  std::unique_ptr<Backend> host_, device_;
  BackendOptions options_;
  std::string host_name_, device_name_;
  // Of the model that was loaded last.
  std::optional<Split> split_;
  std::array<double, 2> step_bytes_ = {};  // that each reads in a decode step
  std::array<double, 2> token_ops_ = {};   // of each, in its linears
};

BackendInfo HybridBackend::info() const {
  BackendInfo info = host_->info();
  const BackendInfo device = device_->info();
  info.name = host_name_ + "+" + device_name_;
  info.device = device.device;
  info.memory_bytes = device.memory_bytes;
  for (const std::string& note : device.notes) info.notes.push_back(device_name_ + ": " + note);
  info.warnings.insert(info.warnings.end(), device.warnings.begin(), device.warnings.end());
  if (split_) info.notes.push_back(split_note());
  return info;
}

std::string HybridBackend::split_note() const {
  if (split_->device == 0) return "all layers on " + host_name_;
  if (split_->host == 0) return "all layers on " + device_name_;
  return fmt::format("the first {} layers on {}, the last {} and the LM head on {}", split_->host,
                     host_name_, split_->device, device_name_);
}

Split HybridBackend::choose_split(const Graph& graph, const TensorSource& source) const {
  const int64_t layers = layer_count(graph);
  int64_t on_device = std::min<int64_t>(options_.gpu_layers, layers);
  if (options_.gpu_layers == kAutomaticLayers) {
    DeviceRoom room = device_room(graph, source, *device_, options_);
    room.available = device_->memory_available();
    require(room.available > 0, ErrorCode::unsupported,
            "device {}: how much of its memory is free is not known; say how many layers it takes "
            "(--gpu-layers)",
            device_name_);
    on_device = layers_that_fit(room);
    if (options_.log) {
      options_.log(on_device > 0 ? LogLevel::info : LogLevel::warning,
                   fmt::format("{}: {} of {} layers fit into the {} MiB that are free",
                               device_name_, on_device, layers, room.available >> 20));
    }
  }
  return {layers - on_device, on_device};
}

Split HybridBackend::split_of(const KvShape& shape) const {
  if (split_) {
    require(shape.n_layers == split_->host + split_->device, ErrorCode::invalid_argument,
            "{}: keys and values of {} layers, the model has {}", info().name, shape.n_layers,
            split_->host + split_->device);
    return *split_;
  }
  require(options_.gpu_layers != kAutomaticLayers, ErrorCode::internal,
          "{}: how layers are split is known when a model is loaded", info().name);
  const int64_t on_device = std::min<int64_t>(options_.gpu_layers, shape.n_layers);
  return {shape.n_layers - on_device, on_device};
}

std::shared_ptr<const Weights> HybridBackend::load_on_device(
    const Graph& graph, std::shared_ptr<const TensorSource> source, const ProgressFn& progress) {
  try {
    return device_->load(graph, std::move(source), progress);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::out_of_memory) throw;
    fail(ErrorCode::out_of_memory, "{} ({} of {} layers were to lie on {}: try fewer)", e.what(),
         split_->device, split_->host + split_->device, device_name_);
  }
}

std::shared_ptr<const Weights> HybridBackend::load(const Graph& graph,
                                                   std::shared_ptr<const TensorSource> source,
                                                   const ProgressFn& progress) {
  split_ = choose_split(graph, *source);
  auto out = std::make_shared<HybridWeights>();
  out->split = *split_;
  out->host_name = host_name_;
  out->device_name = device_name_;
  const double hosts_share =
      static_cast<double>(split_->host) / static_cast<double>(split_->host + split_->device);
  if (split_->in_two()) {
    const CutGraph parts = cut(graph, static_cast<int32_t>(split_->host));
    out->host = host_->load(parts.first, source, part_of(progress, 0, hosts_share));
    out->device = load_on_device(parts.second, source, part_of(progress, hosts_share, 1));
    token_ops_ = {linear_ops(parts.first), linear_ops(parts.second)};
  } else if (split_->host > 0) {
    out->host = host_->load(graph, source, progress);
    token_ops_ = {linear_ops(graph), 0};
  } else {
    out->device = load_on_device(graph, source, progress);
    token_ops_ = {0, linear_ops(graph)};
  }
  const auto bytes = [](const auto& w) { return w ? static_cast<double>(w->bytes_per_step()) : 0; };
  step_bytes_ = {bytes(out->host), bytes(out->device)};
  return out;
}

std::unique_ptr<Plan> HybridBackend::compile(const Graph& graph,
                                             std::shared_ptr<const Weights> weights,
                                             const PlanLimits& limits) {
  const auto own = std::dynamic_pointer_cast<const HybridWeights>(std::move(weights));
  require(own != nullptr, ErrorCode::invalid_argument, "hybrid: weights of another backend");
  if (!own->device) return host_->compile(graph, own->host, limits);
  if (!own->host) return device_->compile(graph, own->device, limits);
  const CutGraph halves = cut(graph, static_cast<int32_t>(own->split.host));
  HybridParts parts;
  parts.host = host_->compile(halves.first, own->host, limits);
  parts.device = device_->compile(halves.second, own->device, limits);
  parts.device_op = static_cast<int32_t>(halves.first.ops.size()) - 1;  // behind the input
  parts.width = halves.first.value(halves.first.logits).width;
  parts.residual = device_->host_buffer(limits.max_tokens * parts.width);
  return std::make_unique<HybridPlan>(graph, limits, std::move(parts));
}

std::unique_ptr<KvStorage> HybridBackend::make_kv_storage(const KvShape& shape, int64_t blocks) {
  const Split split = split_of(shape);
  if (split.device == 0) return host_->make_kv_storage(shape, blocks);
  if (split.host == 0) return device_->make_kv_storage(shape, blocks);
  KvShape part = shape;
  part.n_layers = split.host;
  auto hosts = host_->make_kv_storage(part, blocks);
  part.n_layers = split.device;
  return std::make_unique<HybridStorage>(std::move(hosts), split.host,
                                         device_->make_kv_storage(part, blocks), split.device);
}

int64_t HybridBackend::kv_block_bytes(const KvShape& shape) const {
  const Split split = split_of(shape);
  KvShape hosts = shape, devices = shape;
  hosts.n_layers = split.host;
  devices.n_layers = split.device;
  return (split.host > 0 ? host_->kv_block_bytes(hosts) : 0) +
         (split.device > 0 ? device_->kv_block_bytes(devices) : 0);
}

int64_t HybridBackend::kv_blocks_that_fit(const KvShape& shape) const {
  const Split split = split_of(shape);
  KvShape part = shape;
  part.n_layers = split.host;
  const int64_t hosts = split.host > 0 ? host_->kv_blocks_that_fit(part) : 0;
  part.n_layers = split.device;
  const int64_t devices = split.device > 0 ? device_->kv_blocks_that_fit(part) : 0;
  return hosts == 0 || (devices != 0 && devices < hosts) ? devices : hosts;
}

PlacementInfo HybridBackend::placement(const Weights& weights) const {
  const auto* own = dynamic_cast<const HybridWeights*>(&weights);
  require(own != nullptr, ErrorCode::invalid_argument, "hybrid: weights of another backend");
  // Nodes are the host's matter: a device's memory has none.
  return own->host ? host_->placement(*own->host) : device_->placement(*own->device);
}

}  // namespace

std::unique_ptr<Backend> make_backend(std::unique_ptr<Backend> host,
                                      std::unique_ptr<Backend> device,
                                      const BackendOptions& options) {
  require(options.gpu_layers >= kAutomaticLayers, ErrorCode::invalid_argument,
          "gpu_layers: {}, expected 0 or more, or -1 for as many as fit", options.gpu_layers);
  require(options.numa != NumaPolicy::replicate, ErrorCode::unsupported,
          "numa replicate: a model that is split over devices is not copied to each memory node");
  return std::make_unique<HybridBackend>(std::move(host), std::move(device), options);
}

}  // namespace qllm::hybrid
