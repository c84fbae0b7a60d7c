#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <utility>
#include <variant>

#include "core/error.h"
#include "engine/loaded_model.h"
#include "model/gguf_config.h"
#include "model/gguf_vocab.h"
#include "model/llama.h"
#include "model/weight_bytes.h"
#include "quant/ggml_types.h"

namespace qllm {
namespace {

constexpr int64_t kKvElementBytes = 2;  // bf16

/// Of one token's linears; those of output rows alone (the LM head) are left out.
int64_t linear_ops(const Graph& graph) {
  int64_t ops = 0;
  for (const Op& op : graph.ops) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (linear == nullptr || graph.value(linear->out).rows != Rows::tokens) continue;
    const Weight& w = graph.weight(linear->weight);
    ops += 2 * w.n * w.k;
  }
  return ops;
}

ModelInfo describe_config(const ModelConfig& c) {
  ModelInfo info;
  info.architecture = c.architecture;
  info.name = c.name;
  info.vocab_size = c.vocab_size;
  info.d_model = c.d_model;
  info.d_ff = c.d_ff;
  info.n_layers = c.n_layers;
  info.n_heads = c.n_heads;
  info.n_kv_heads = c.n_kv_heads;
  info.head_dim = c.head_dim;
  info.rotary_dim = c.rotary_dim;
  info.context_length = c.context_length;
  info.rms_norm_eps = c.rms_norm_eps;
  info.rope_base = c.rope_base;
  info.tied_lm_head = c.tied_lm_head;
  info.parameters = parameter_count(build_llama(c));
  info.kv_bytes_per_token = 2 * c.n_layers * c.n_kv_heads * c.head_dim * kKvElementBytes;
  return info;
}

std::string processor_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

}  // namespace

ModelInfo describe(const GgufFile& file, const ModelConfig& config) {
  ModelInfo info = describe_config(config);
  info.file_bytes = file.file_bytes();
  for (const GgufTensor& t : file.tensors()) {
    info.tensors.push_back({std::string(t.name), std::string(ggml_type_info(t.type).name), t.shape,
                            static_cast<int64_t>(t.data.size())});
  }
  return info;
}

ModelInfo describe(const ModelConfig& config) { return describe_config(config); }

void predict_sizes(const Graph& graph, const Scheme& scheme, const TensorSource& source,
                   ModelInfo* info) {
  const WeightBytes bytes = weight_bytes(graph, scheme, source);
  info->scheme = to_string(scheme);
  info->weight_bytes = bytes.in_memory;
  info->bytes_per_token = bytes.per_step;
  info->ops_per_token = linear_ops(graph);
}

void packed_sizes(const Graph& graph, const PackedFile& file, ModelInfo* info) {
  int64_t gathered = 0;
  info->weight_bytes = 0;
  for (const Weight& w : graph.weights) {
    const auto floats = w.k * static_cast<int64_t>(sizeof(float));
    if (w.role == WeightRole::linear) info->weight_bytes += file.find(w.name)->layout.bytes();
    if (w.role == WeightRole::vector) info->weight_bytes += floats;
    if (w.role == WeightRole::embedding) gathered += floats;
  }
  info->scheme = to_string(file.form().scheme);
  info->bytes_per_token = info->weight_bytes + gathered;
  info->ops_per_token = linear_ops(graph);
}

void describe_parts(const Replica& replica, ModelInfo* info) {
  info->parts.clear();
  for (const WeightsPart& part : replica.weights->parts()) {
    const auto index = static_cast<int>(info->parts.size());
    const int64_t block_bytes = replica.kv_pool->storage().part(index)->block_bytes();
    info->parts.push_back(
        {part.device, part.layers, part.bytes, part.bytes_per_step, block_bytes / kKvBlockTokens});
  }
}

int64_t memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0 ? int64_t{pages} * page_bytes : 0;
}

MachineInfo machine_info(const Backend& backend) {
  const BackendInfo b = backend.info();
  MachineInfo info;
  info.cpu = processor_name();
  info.isa = b.isa;
  info.isa_used = b.isa_used;
  info.kernels = b.kernels;
  info.packages = b.packages;
  info.numa_nodes = b.numa_nodes;
  info.cores = b.cores;
  info.workers = b.workers;
  info.cpus = b.cpus;
  info.memory_bytes = memory_bytes();
  info.device = b.device.empty() ? info.cpu : b.device;
  info.device_memory_bytes = b.memory_bytes > 0 ? b.memory_bytes : info.memory_bytes;
  info.notes = b.notes;
  return info;
}

}  // namespace qllm
