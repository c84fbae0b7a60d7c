// What a Model shares: its copies of the weights, each with a plan, and the tokenizer.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "backend/backend.h"
#include "engine/engine_log.h"
#include "engine/session_file.h"
#include "graph/graph.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/packed_file.h"
#include "model/rotation.h"
#include "qllm/qllm.hpp"
#include "text/tokenizer.h"

namespace qllm {

/// Logits of so many tokens are computed in one step at most: the LM head's output is the widest
/// value by far (64 x 49,152 floats are 12.6 MB).
inline constexpr int64_t kMaxOutputs = 64;
inline constexpr int64_t kDefaultContext = 4096;
/// Without a budget the KV pool has room for so many tokens or two full contexts, whichever is
/// more, in at most a quarter of the machine's memory; and so many stay known when no session holds
/// them, which is what an idle model keeps.
inline constexpr int64_t kDefaultKvTokens = 131072;
inline constexpr int64_t kDefaultKeptTokens = 8192;

/// One team of workers with a copy of the weights, a plan, and the keys and values of its sessions.
/// One for most models; one per memory node under the policy `replicate`.
struct Replica {
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const Weights> weights;
  std::unique_ptr<Plan> plan;
  std::mutex plan_mutex;
  std::shared_ptr<KvPool> kv_pool;
  std::atomic<int> sessions{0};

  /// One step; several sessions take turns.
  void execute(const Batch& batch, std::span<float> logits);
  /// From the next step on, in memory that it takes here; null: no more. Waits for the step that
  /// runs. Throws invalid_argument while another records, out_of_memory.
  void set_recorder(StepRecorder* recorder);

 private:
  bool recorded_ = false;
};

class ModelImpl {
 public:
  /// A file and its tokenizer.
  ModelImpl(std::shared_ptr<const GgufFile> gguf, const OpenOptions& options);
  /// `known_good`: it was compared with its checksums before, and not touched since.
  ModelImpl(std::shared_ptr<const PackedFile> packed, const OpenOptions& options,
            bool known_good = false);
  /// Random weights.
  ModelImpl(const SyntheticShape& shape, const OpenOptions& options);

  /// The one with the fewest sessions.
  Replica& freest_replica();
  const Tokenizer& tokenizer() const;  // throws unsupported where there is none
  /// To whom saved sequences belong. The first call reads a sample of the weights.
  SequenceOwner owner() const;

  ModelConfig config;
  ModelInfo info;
  std::shared_ptr<const GgufFile> file;            // null for a synthetic model; the image in a
                                                   // packed one
  std::unique_ptr<const Tokenizer> own_tokenizer;  // null for a synthetic model
  std::deque<Replica> replicas;                    // at least one; addresses stay
  PlanLimits limits;
  EngineLog log;                          // what sessions do when, for traces
  std::atomic<int32_t> sessions_made{0};  // numbers them

 private:
  void make_own_tokenizer();
  void describe_tokenizer();
  /// `budget`: bytes for its keys and values; 0: choose.
  void make_kv_pool(Replica* replica, int64_t budget);
  /// `source` has the tensors as they are.
  void load(const Graph& graph, const Rotations& rotations,
            std::shared_ptr<const TensorSource> source, const OpenOptions& options);
  class PackedVerifier* verifier_ = nullptr;    // while a packed file is loaded
  std::shared_ptr<const PackedFile> packed_;    // null where weights are made from rows
  std::shared_ptr<const TensorSource> source_;  // the tensors as they are
  std::string form_;                            // what is made of them: scheme, rotations
  mutable std::once_flag digest_once_;
  mutable uint64_t digest_ = 0;
};

BackendOptions backend_options(const OpenOptions& options);
/// Of every plan of a model. Throws invalid_argument.
PlanLimits plan_limits(const OpenOptions& options);
MachineInfo machine_info(const Backend& backend);
/// How each team of a model is made: one, or one per memory node that has CPUs to use.
std::vector<BackendOptions> team_options(const std::string& device, const BackendOptions& options);
/// Of the machine; 0 where the system does not say.
int64_t memory_bytes();
/// The scheme that the options name, or the default of their device.
Scheme choose_scheme(const OpenOptions& options);
/// The rotations of a model opened so: for int8 all that its sizes allow.
Rotations choose_rotations(const ModelConfig& config, const OpenOptions& options);
/// What a configuration says.
ModelInfo describe(const ModelConfig& config);
/// What a file says of itself.
ModelInfo describe(const GgufFile& file, const ModelConfig& config);
/// Adds the sizes that the weights of `graph` will have under a scheme.
void predict_sizes(const Graph& graph, const Scheme& scheme, const TensorSource& source,
                   ModelInfo* info);
/// What each device of a loaded model has of it, where there are two.
void describe_parts(const Replica& replica, ModelInfo* info);
/// As predict_sizes, of a packed file, which need not be predicted.
void packed_sizes(const Graph& graph, const PackedFile& file, ModelInfo* info);

}  // namespace qllm
