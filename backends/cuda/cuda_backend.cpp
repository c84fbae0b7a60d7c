#include "cuda_backend.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "block_source.h"
#include "ceilings.h"
#include "core/error.h"
#include "cuda_device.h"
#include "cuda_kv_storage.h"
#include "cuda_plan.h"
#include "cuda_weights.h"
#include "parallel.h"
#include "team_cut.h"
#include "team_kv_storage.h"
#include "team_plan.h"

namespace qllm::cuda {
namespace {

std::string cuda_version(int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); }

/// What the kernels do on a device, as `qllm info --kernels` lists it.
std::vector<KernelChoice> kernel_choices() {
  return {
      {1, 0, 0, "stream", "dp4a, a warp for 2 or 4 rows (groups: 16 lanes for 64 outputs)"},
      {kStreamTokens + 1, 0, 0, "tiles", "tensor cores on 16 rows (groups: 32 outputs)"},
      {kTileTokens + 1, 0, 0, "cuBLASLt", "int8; groups stay with tiles"},
  };
}

void pack_runs(const Weight& weight, const std::vector<PackedRun>& runs, int term,
               const TensorSource& source, const Backend::PackFn& take) {
  for (size_t r = 0; r < runs.size(); ++r) {
    const PackedRun& run = runs[r];
    in_parallel(run.n / kBlockN, [&](int64_t i) {
      std::vector<std::byte> codes(static_cast<size_t>(run.column_bytes()));
      float scale[kBlockN];
      int32_t sum[kBlockN];
      const int64_t row = run.n0 + i * kBlockN;
      pack_block(weight, run, term, source, row, {codes.data(), scale, sum});
      take({r, term == 2, row, {codes.data(), scale, sum}});
    });
  }
}

/// A GPU with the streams that are not a plan's.
struct Gpu {
  explicit Gpu(DeviceInfo info) : device(std::move(info)) {}
  void use() const { check(cudaSetDevice(device.index), "cudaSetDevice"); }

  DeviceInfo device;
  Stream stream;
  Stream kv_stream;  // what makes and copies blocks must not wait behind other work
};

bool alike(const DeviceInfo& a, const DeviceInfo& b) {
  return a.name == b.name && a.major == b.major && a.minor == b.minor &&
         a.multiprocessors == b.multiprocessors;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options) : options_(options) {
    gpus_.push_back(std::make_unique<Gpu>(open_device(0)));
    add_gpus();
    use();
  }

  BackendInfo info() const override {
    const DeviceInfo& first = device();
    BackendInfo info;
    info.name = "cuda";
    info.device = gpus_.size() == 1 ? first.name : fmt::format("{} x {}", gpus_.size(), first.name);
    const std::string capability = fmt::format("sm_{}{}", first.major, first.minor);
    info.isa = {capability};
    info.isa_used = capability;
    info.kernels = kernel_choices();
    info.workers = 0;
    for (const auto& gpu : gpus_) {
      const DeviceInfo& d = gpu->device;
      info.memory_bytes += d.total_bytes;
      info.workers += d.multiprocessors;
      info.notes.push_back(fmt::format(
          "{}: {} MiB, {} of it free; {} multiprocessors; compute capability "
          "{}.{}; CUDA {}, driver for CUDA {}",
          d.name, d.total_bytes >> 20, free_bytes(*gpu) >> 20, d.multiprocessors, d.major, d.minor,
          cuda_version(d.runtime_version), cuda_version(d.driver_version)));
    }
    use();
    return info;
  }

  std::shared_ptr<const Weights> load(const Graph& graph,
                                      std::shared_ptr<const TensorSource> source,
                                      const ProgressFn& progress) override {
    if (gpus_.size() > 1) {
      if (auto shared = load_team(graph, source, progress)) return shared;
    }
    use();
    auto weights = std::make_shared<CudaWeights>(graph, options_.scheme, std::move(source),
                                                 gpus_.front()->stream, progress);
    log(fmt::format("cuda: {} MiB of weights on {}, {} MiB are free", weights->bytes() >> 20,
                    device().name, free_bytes(*gpus_.front()) >> 20));
    return weights;
  }

  void pack(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
            const PackFn& take) override {
    pack_runs(weight, layout.runs, 1, source, take);
    pack_runs(weight, layout.second_terms, 2, source, take);
  }

  /// Of all GPUs: blocks are cut by heads, which takes no more.
  int64_t kv_block_bytes(const KvShape& shape) const override {
    return kv_geometry(shape, options_.kv_format).block_bytes();
  }

  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) override {
    if (communicator_ == nullptr) return kv_of(*gpus_.front(), shape, blocks);
    const auto ranks = static_cast<int64_t>(gpus_.size());
    const Deal heads = deal_heads(shape.n_kv_heads, shape.head_dim, ranks);
    std::vector<std::unique_ptr<CudaKvStorage>> parts;
    for (int64_t r = 0; r < ranks; ++r) {
      KvShape own = shape;
      own.n_kv_heads = heads.end(r) - heads.begin(r);
      parts.push_back(kv_of(*gpus_[static_cast<size_t>(r)], own, blocks));
    }
    return std::make_unique<TeamKvStorage>(std::move(parts));
  }

  std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                const PlanLimits& limits) override {
    if (const auto* team = dynamic_cast<const TeamWeights*>(weights.get())) {
      require(communicator_ != nullptr, ErrorCode::invalid_argument,
              "cuda: weights of another backend");
      std::vector<DeviceInfo> devices;
      for (const auto& gpu : gpus_) devices.push_back(gpu->device);
      return compile_team_plan(devices, communicator_, graph, *team, limits);
    }
    use();
    auto own = std::dynamic_pointer_cast<const CudaWeights>(std::move(weights));
    require(own != nullptr, ErrorCode::invalid_argument, "cuda: weights of another backend");
    return std::make_unique<CudaPlan>(device(), graph, std::move(own), limits);
  }

  /// Shares are alike: the fullest GPU counts, for all.
  int64_t memory_available() const override {
    int64_t least = free_bytes(*gpus_.front());
    for (const auto& gpu : gpus_) least = std::min(least, free_bytes(*gpu));
    use();
    return least * static_cast<int64_t>(gpus_.size());
  }

  std::shared_ptr<float[]> host_buffer(int64_t count) override {
    use();
    auto memory = std::make_shared<PinnedBuffer>(count * static_cast<int64_t>(sizeof(float)));
    return {memory, memory->as<float>()};
  }

  double measure_read_gbps(int64_t bytes) override {
    const int64_t each = bytes / static_cast<int64_t>(gpus_.size());
    return of_all([&](Gpu& gpu) { return cuda::measure_read_gbps(each, gpu.device, gpu.stream); });
  }

  double measure_peak_tops() override {
    return of_all(
        [](Gpu& gpu) { return measure_gemm_tops(GemmKind::int8, gpu.device, gpu.stream); });
  }

  double measure_peak_f16_tflops() override {
    return of_all(
        [](Gpu& gpu) { return measure_gemm_tops(GemmKind::f16, gpu.device, gpu.stream); });
  }

  /// To one: what comes from the host goes to each, side by side.
  double measure_host_gbps() override {
    use();
    return measure_upload_gbps(gpus_.front()->stream);
  }

 private:
  const DeviceInfo& device() const { return gpus_.front()->device; }
  /// A thread's current device is its own affair.
  void use() const { gpus_.front()->use(); }
  void log(const std::string& line) const {
    if (options_.log) options_.log(LogLevel::info, line);
  }

  static int64_t free_bytes(const Gpu& gpu) {
    gpu.use();
    return free_device_bytes();
  }

  std::unique_ptr<CudaKvStorage> kv_of(const Gpu& gpu, const KvShape& shape, int64_t blocks) const {
    gpu.use();
    return std::make_unique<CudaKvStorage>(shape, options_.kv_format, blocks, gpu.device.index,
                                           gpu.kv_stream.get());
  }

  /// One GPU after the other; what they make of it together.
  template <class Measure>
  double of_all(Measure measure) {
    double sum = 0;
    for (const auto& gpu : gpus_) {
      gpu->use();
      sum += measure(*gpu);
    }
    use();
    return sum;
  }

  void add_gpus();
  std::shared_ptr<const Weights> load_team(const Graph& graph,
                                           const std::shared_ptr<const TensorSource>& source,
                                           const ProgressFn& progress);

  BackendOptions options_;
  std::vector<std::unique_ptr<Gpu>> gpus_;      // those that share the work
  std::shared_ptr<Communicator> communicator_;  // once weights were shared out
};

/// The other GPUs of the process, where they can share the work of the first.
void CudaBackend::add_gpus() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (count == 1) return;
  if (load_nccl() == nullptr) {
    return log(fmt::format("cuda: {} GPUs, but no NCCL (libnccl.so.2): one is used", count));
  }
  for (int i = 1; i < count; ++i) {
    try {
      const DeviceInfo other = open_device(i);
      if (alike(other, device())) {
        gpus_.push_back(std::make_unique<Gpu>(other));
      } else {
        log(fmt::format("cuda: GPU {} ({}) is left out: it is not like GPU 0 ({})", i, other.name,
                        device().name));
      }
    } catch (const Error& e) {
      log(fmt::format("cuda: GPU {} is left out: {}", i, e.what()));
    }
  }
}

/// Null where the graph cannot be cut: then one GPU has it all, from here on.
std::shared_ptr<const Weights> CudaBackend::load_team(
    const Graph& graph, const std::shared_ptr<const TensorSource>& source,
    const ProgressFn& progress) {
  const int ranks = static_cast<int>(gpus_.size());
  TeamCut cut;
  try {
    cut = cut_graph(graph, ranks);
    std::vector<int> devices;
    for (const auto& gpu : gpus_) devices.push_back(gpu->device.index);
    if (communicator_ == nullptr) {
      communicator_ = std::make_shared<Communicator>(*load_nccl(), devices);
    }
  } catch (const Error& e) {
    require(communicator_ == nullptr, ErrorCode::unsupported, "cuda: a second model: {}", e.what());
    log(fmt::format("cuda: one of {} GPUs is used: {}", ranks, e.what()));
    gpus_.resize(1);
    return nullptr;
  }
  std::vector<std::shared_ptr<const CudaWeights>> shares;
  for (int r = 0; r < ranks; ++r) {
    const auto own = [&](std::string_view stage, double done) {
      return !progress || progress(stage, (r + done) / ranks);
    };
    const Gpu& gpu = *gpus_[static_cast<size_t>(r)];
    gpu.use();
    shares.push_back(std::make_shared<CudaWeights>(graph, options_.scheme, source, gpu.stream, own,
                                                   cut.ranks[static_cast<size_t>(r)].shares));
  }
  use();
  auto weights = std::make_shared<TeamWeights>(std::move(shares));
  log(fmt::format("cuda: {} MiB of weights on {} x {}, {} MiB are free on the first",
                  weights->bytes() >> 20, ranks, device().name, free_bytes(*gpus_.front()) >> 20));
  return weights;
}

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  require(options.scheme.kind != SchemeKind::fp32, ErrorCode::unsupported,
          "device cuda: scheme fp32: it computes with quantized weights, the reference in fp32");
  return std::make_unique<CudaBackend>(options);
}

}  // namespace qllm::cuda
