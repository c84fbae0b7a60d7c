// What a Model shares: weights, one plan, the tokenizer.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "backend/backend.h"
#include "graph/graph.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/rotation.h"
#include "qllm/qllm.hpp"
#include "text/tokenizer.h"

namespace qllm {

/// Logits of so many tokens are computed in one step at most: the LM head's output is the widest
/// value by far (64 x 49,152 floats are 12.6 MB).
inline constexpr int64_t kMaxOutputs = 64;
inline constexpr int64_t kDefaultContext = 4096;

class ModelImpl {
 public:
  /// A file and its tokenizer.
  ModelImpl(const std::string& path, const OpenOptions& options);
  /// Random weights.
  ModelImpl(const SyntheticShape& shape, const OpenOptions& options);

  /// One step; several sessions take turns.
  void execute(const Batch& batch, std::span<float> logits);
  std::unique_ptr<KvCache> make_kv_cache(int64_t capacity);
  const Tokenizer& tokenizer() const;  // throws unsupported where there is none

  ModelConfig config;
  ModelInfo info;
  std::shared_ptr<const GgufFile> file;            // null for a synthetic model
  std::unique_ptr<const Tokenizer> own_tokenizer;  // null for a synthetic model
  std::unique_ptr<Backend> backend;
  PlanLimits limits;

 private:
  /// `source` has the tensors as they are.
  void load(const Graph& graph, const Rotations& rotations,
            std::shared_ptr<const TensorSource> source, const OpenOptions& options);
  std::shared_ptr<const Weights> weights_;
  std::unique_ptr<Plan> plan_;
  std::mutex plan_mutex_;
};

BackendOptions backend_options(const OpenOptions& options);
MachineInfo machine_info(const Backend& backend);
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

}  // namespace qllm
