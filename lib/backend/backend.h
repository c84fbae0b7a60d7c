// What crosses the device line. A Backend loads the weights of a Graph, compiles it into a Plan and
// makes the pool of KV blocks; the engine executes the Plan on Batches. Nothing here names a
// device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/kv_cache.h"
#include "backend/kv_format.h"
#include "backend/numa_policy.h"
#include "core/log.h"
#include "graph/graph.h"
#include "qllm/qllm.hpp"
#include "quant/group.h"
#include "quant/scheme.h"

namespace qllm {

class StepRecorder;
struct PackedLinear;
struct PackedLayout;
struct PackedBlock;

/// The tensors of a model, by name and row, as float32. Implementations are safe to call from
/// several threads at once.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  /// Writes rows [row, row+count) of `tensor` to out [count, row length].
  virtual void read_rows(const std::string& tensor, int64_t row, int64_t count,
                         float* out) const = 0;
  /// The grid of groups on which a tensor's values lie, or nothing. read_rows gives the same
  /// values.
  virtual std::optional<GroupFormat> grid(const std::string& tensor) const {
    static_cast<void>(tensor);
    return std::nullopt;
  }
  /// One row as it stands on grid(tensor). Precondition: it has one.
  virtual void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const;
  /// A linear of the graph, by the weight's name, as it was packed before (packed_linear.h), or
  /// null: then it is made from rows.
  virtual const PackedLinear* packed(const std::string& weight) const {
    static_cast<void>(weight);
    return nullptr;
  }
  /// What was read lately is not soon read again: mapped pages may go.
  virtual void release() const {}
};

/// How the 64 outputs of `weight` from `row` (a multiple of 64) on are stored under a scheme. All
/// blocks of a weight agree in what activations they want: per token (row_int8, f32) or per group
/// of the same size (keep: always 32). Under `keep`, a block whose rows lie on several grids, or on
/// none, is int8 in groups of 32.
WeightFormat block_format(const Scheme& scheme, const Weight& weight, const TensorSource& source,
                          int64_t row);

/// Rows [row, row+count) of a weight put together from its spans, out [count, weight.k]; rows that
/// no span names are zero.
void read_weight_rows(const TensorSource& source, const Weight& weight, int64_t row, int64_t count,
                      float* out);

/// All elements of a `vector` weight, its parts laid end to end, out [weight.k].
void read_weight_vector(const TensorSource& source, const Weight& weight, float* out);

/// Where weights lie.
enum class MemoryMode : uint8_t {
  automatic,  ///< map where the file is packed and all workers share a node, else copy
  map,        ///< packed weights stay where the file is mapped; others are copied
  copy,       ///< each worker's weights in its own memory, on large pages where given
  hugetlb,    ///< the same on the large pages that the administrator set aside
};

/// "auto", "map", "copy", "hugetlb". Throws invalid_argument, naming what there is.
MemoryMode parse_memory_mode(std::string_view name);
std::string to_string(MemoryMode mode);

/// The most that one step may carry; buffers are made for it once.
struct PlanLimits {
  int64_t max_tokens = 512;
  int64_t max_outputs = 1;
};

/// BackendOptions::gpu_layers: as many as fit.
inline constexpr int64_t kAutomaticLayers = -1;

struct BackendOptions {
  int threads = 0;   // workers; 0: one per physical core that the process may use
  std::string cpus;  // CPU list such as "0-3,8"; empty: all that the process may use
  std::string isa;   // kernel tier by name; empty: the best that the machine has
  Scheme scheme;     // how weights and activations are stored; fp32: reference only
  KvFormat kv_format = KvFormat::bf16;  // the reference emulates int8, and holds bf16 as float32
  bool kv_as_bf16 = false;              // reference only: bf16 is rounded to what the cpu stores
  bool large_pages = true;              // ask for transparent large pages for weights and KV
  MemoryMode memory = MemoryMode::automatic;  // cpu only
  bool lock_memory = false;                   // cpu only: weights are locked (mlock)
  NumaPolicy numa = NumaPolicy::split;        // cpu only; of one team: replicate means split
  int numa_node = -1;  // cpu only: workers and memory of this node only; -1: of all
  // Where a second device takes layers: how many, the last ones. For an automatic number: what it
  // leaves room for.
  int64_t gpu_layers = kAutomaticLayers;
  int64_t kv_memory_bytes = 0;  // of all layers; 0: some thousand tokens
  PlanLimits limits;
  LogFn log;
};

/// Tokens [first, first+count) of a batch continue the sequence of `kv`, in order.
struct BatchSlice {
  KvCache* kv = nullptr;
  int64_t first = 0;
  int64_t count = 0;
};

/// One step: the tokens of all slices end to end, and which of them want logits.
struct Batch {
  std::span<const int32_t> tokens;
  std::span<const BatchSlice> slices;
  std::span<const int32_t> outputs;  // ascending indices into tokens
  /// [tokens, width] of the graph's InputOp; empty where it has none.
  std::span<const float> inputs = {};
  /// Of a step that was cut over several plans (graph/cut.h): which part this is, and of the
  /// caches' storage. Whoever cut it makes room in the caches before and advances them behind.
  int part = kWholeStep;
};

/// A compiled graph with its buffers. Not safe for two threads at once. On the cpu `execute`
/// allocates nothing once it has met the longest cache (oneDNN, where it is used, makes small
/// allocations).
class Plan {
 public:
  virtual ~Plan() = default;
  /// Runs one step, appends to the slices' caches, writes the graph's result: logits [outputs,
  /// vocab], or what a first part hands on, [tokens, width].
  /// Throws invalid_argument beyond the limits, context_full where a cache is full, out_of_memory
  /// where its pool is (all before anything is changed).
  virtual void execute(const Batch& batch, std::span<float> logits) = 0;
  virtual const PlanLimits& limits() const = 0;
  /// From the next step on each op is timed (profile.h); null: no more. The recorder stays as long.
  /// A plan that has no timers ignores it.
  virtual void set_recorder(StepRecorder* recorder) { static_cast<void>(recorder); }
  /// Seconds that each of Weights::parts() has computed so far; empty where there is one device.
  virtual std::vector<double> part_seconds() const { return {}; }
};

/// What one device holds of a model that two devices share by layers.
struct WeightsPart {
  std::string device;
  int64_t layers = 0;
  int64_t bytes = 0;           // Weights::bytes()
  int64_t bytes_per_step = 0;  // Weights::bytes_per_step()
};

/// The loaded weights of one graph on one backend.
class Weights {
 public:
  virtual ~Weights() = default;
  /// Bytes held in memory: packed weights with scales and sums.
  virtual int64_t bytes() const = 0;
  /// Bytes that one decode step of one token reads (linears with scales, norms, one table row).
  virtual int64_t bytes_per_step() const = 0;
  /// How they lie: "map", "copy", "hugetlb"; empty where that means nothing.
  virtual std::string memory() const { return {}; }
  /// In the order in which a step meets them; empty: one device has all.
  virtual std::vector<WeightsPart> parts() const { return {}; }
};

/// What a backend found and chose: for `qllm info` and logs.
struct BackendInfo {
  std::string name;
  std::string device;            // the name of what computes; empty: the machine's processor
  int64_t memory_bytes = 0;      // of the device; 0: the machine's
  std::vector<std::string> isa;  // tiers that this machine runs, best first
  std::string isa_used;
  std::vector<KernelChoice> kernels;
  int workers = 1;
  int numa_nodes = 1;
  int packages = 1;
  int cores = 1;
  std::vector<int> cpus;              // where the workers are pinned
  std::vector<int> worker_nodes;      // the memory node of each worker; empty: it has none
  std::vector<std::string> notes;     // one line each: quotas, large pages, oneDNN version, …
  std::vector<std::string> warnings;  // of the notes, what is said once when a model is opened
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendInfo info() const = 0;
  /// Reads, quantizes, packs and places all weights. `source` is kept for gathered rows.
  virtual std::shared_ptr<const Weights> load(const Graph& graph,
                                              std::shared_ptr<const TensorSource> source,
                                              const ProgressFn& progress) = 0;
  /// Whether load() leaves packed linears where a file is mapped: then whoever mapped it compares
  /// them with their checksums, else load() does.
  virtual bool maps_packed() const { return false; }
  /// Receives blocks of a linear, from several threads at once, in no order; may throw. The view
  /// holds during the call.
  using PackFn = std::function<void(const PackedBlock&)>;
  /// Quantizes and packs one linear as `layout` says, all workers together. Throws what the source
  /// and `take` throw; unsupported where the backend has no packed form.
  virtual void pack(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
                    const PackFn& take);
  /// Bytes of one block of keys and values.
  virtual int64_t kv_block_bytes(const KvShape& shape) const = 0;
  /// Reserves memory for so many blocks of keys and values; it is taken only as blocks are used.
  /// Throws invalid_argument, out_of_memory.
  virtual std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) = 0;
  /// The keys and values of many sequences. Throws as make_kv_storage.
  std::shared_ptr<KvPool> make_kv_pool(const KvShape& shape, const KvPoolOptions& options);
  /// One sequence with a pool of its own.
  std::unique_ptr<KvCache> make_kv_cache(const KvShape& shape, int64_t capacity);
  virtual std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                        const PlanLimits& limits) = 0;
  /// Bytes of the device's own memory that are free now; 0: it has none, or does not know.
  virtual int64_t memory_available() const { return 0; }
  /// Blocks that a pool without a budget should have at most, by the device's own memory as it is
  /// now; 0: it has none. By default three quarters of what is free: others may want some.
  virtual int64_t kv_blocks_that_fit(const KvShape& shape) const {
    return memory_available() / 4 * 3 / kv_block_bytes(shape);
  }
  /// Memory of this machine for `count` values that the device reads in each step: pinned, where
  /// that is faster. Throws out_of_memory.
  virtual std::shared_ptr<float[]> host_buffer(int64_t count);
  /// The backends of Weights::parts() of the model that was loaded last; they belong to this one.
  virtual std::vector<Backend*> parts() { return {}; }
  /// Where weights of this backend lie, and who reads them.
  virtual PlacementInfo placement(const Weights& weights) const {
    static_cast<void>(weights);
    return {};
  }
  /// Read bandwidth of all workers streaming `bytes` once, in GB/s (1e9); 0 where not measurable.
  virtual double measure_read_gbps(int64_t bytes) {
    static_cast<void>(bytes);
    return 0.0;
  }
  /// Int8 multiply-adds of all workers on registers alone, in 1e12 operations a second (a
  /// multiply-add is two); 0 where not measurable.
  virtual double measure_peak_tops() { return 0.0; }
  /// The same in float32, and in 16 bits with float32 sums.
  virtual double measure_peak_f32_tflops() { return 0.0; }
  virtual double measure_peak_f16_tflops() { return 0.0; }
  /// What the kernels of linears make of weights in `format` and `tokens` tokens where memory does
  /// not bind, in 1e12 operations a second; 0 where not measurable.
  virtual double measure_kernel_tops(const WeightFormat& format, int64_t tokens) {
    static_cast<void>(format), static_cast<void>(tokens);
    return 0.0;
  }
  /// From the host's memory to the device's, in GB/s (1e9); 0 where they are the same.
  virtual double measure_host_gbps() { return 0.0; }
};

/// Makes a backend by name: "cpu", "reference" or "auto"; or of two, such as "cpu+reference", that
/// share the layers, the second as a GPU would. Defined in backends/make_backend.cpp.
std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options);

}  // namespace qllm
