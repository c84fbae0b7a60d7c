#include "cuda_backend.h"

#include <mutex>
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

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options)
      : options_(options), device_(open_device(0)) {}

  BackendInfo info() const override {
    BackendInfo info;
    info.name = "cuda";
    info.device = device_.name;
    info.memory_bytes = device_.total_bytes;
    const std::string capability = fmt::format("sm_{}{}", device_.major, device_.minor);
    info.isa = {capability};
    info.isa_used = capability;
    info.kernels = kernel_choices();
    info.workers = device_.multiprocessors;
    info.notes = {
        fmt::format("{}: {} MiB, {} of it free; {} multiprocessors; compute capability "
                    "{}.{}; CUDA {}, driver for CUDA {}",
                    device_.name, device_.total_bytes >> 20, free_bytes() >> 20,
                    device_.multiprocessors, device_.major, device_.minor,
                    cuda_version(device_.runtime_version), cuda_version(device_.driver_version))};
    return info;
  }

  std::shared_ptr<const Weights> load(const Graph& graph,
                                      std::shared_ptr<const TensorSource> source,
                                      const ProgressFn& progress) override {
    use();
    auto weights =
        std::make_shared<CudaWeights>(graph, options_.scheme, std::move(source), stream_, progress);
    if (options_.log) {
      options_.log(LogLevel::info,
                   fmt::format("cuda: {} MiB of weights on {}, {} MiB are free",
                               weights->bytes() >> 20, device_.name, free_bytes() >> 20));
    }
    return weights;
  }

  void pack(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
            const PackFn& take) override {
    pack_runs(weight, layout.runs, 1, source, take);
    pack_runs(weight, layout.second_terms, 2, source, take);
  }

  int64_t kv_block_bytes(const KvShape& shape) const override {
    return kv_geometry(shape, options_.kv_format).block_bytes();
  }

  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) override {
    use();
    return std::make_unique<CudaKvStorage>(shape, options_.kv_format, blocks, device_.index,
                                           kv_stream_.get());
  }

  std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                const PlanLimits& limits) override {
    use();
    auto own = std::dynamic_pointer_cast<const CudaWeights>(std::move(weights));
    require(own != nullptr, ErrorCode::invalid_argument, "cuda: weights of another backend");
    return compile_plan(device_, graph, std::move(own), limits);
  }

  int64_t memory_available() const override { return free_bytes(); }

  std::shared_ptr<float[]> host_buffer(int64_t count) override {
    use();
    auto memory = std::make_shared<PinnedBuffer>(count * static_cast<int64_t>(sizeof(float)));
    return {memory, memory->as<float>()};
  }

  double measure_read_gbps(int64_t bytes) override {
    use();
    return cuda::measure_read_gbps(bytes, device_, stream_);
  }

  double measure_peak_tops() override {
    use();
    return measure_gemm_tops(GemmKind::int8, device_, stream_);
  }

  double measure_peak_f16_tflops() override {
    use();
    return measure_gemm_tops(GemmKind::f16, device_, stream_);
  }

  double measure_host_gbps() override {
    use();
    return measure_upload_gbps(stream_);
  }

 private:
  /// A thread's current device is its own affair.
  void use() const { check(cudaSetDevice(device_.index), "cudaSetDevice"); }
  int64_t free_bytes() const {
    use();
    return free_device_bytes();
  }

  BackendOptions options_;
  DeviceInfo device_;
  Stream stream_;
  Stream kv_stream_;  // what makes and copies blocks must not wait behind other work
};

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  require(options.scheme.kind != SchemeKind::fp32, ErrorCode::unsupported,
          "device cuda: scheme fp32: it computes with quantized weights, the reference in fp32");
  return std::make_unique<CudaBackend>(options);
}

}  // namespace qllm::cuda
