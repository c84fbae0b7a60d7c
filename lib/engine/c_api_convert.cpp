#include "engine/c_api_convert.h"

#include <type_traits>

#include "engine/c_api_structs.h"

namespace qllm::c {
namespace {

std::string string_or_empty(const char* text) { return text == nullptr ? "" : text; }

template <typename T>
std::string joined(const std::vector<T>& items) {
  std::string out;
  for (const auto& item : items) {
    if (!out.empty()) out += ' ';
    if constexpr (std::is_arithmetic_v<T>) {
      out += std::to_string(item);
    } else {
      out += item;
    }
  }
  return out;
}

}  // namespace

qllm_open_options default_open_options() {
  const OpenOptions d;
  qllm_open_options out = {};
  out.struct_size = sizeof(out);
  out.max_batch_tokens = d.max_batch_tokens;
  out.threads = d.threads;
  out.large_pages = d.large_pages ? 1 : 0;
  out.rotate = d.rotate ? 1 : 0;
  out.cache_bytes = d.cache_bytes;
  out.gpu_layers = d.gpu_layers;
  return out;
}

qllm_synthetic_shape default_shape() {
  const SyntheticShape d;
  qllm_synthetic_shape out = {};
  out.struct_size = sizeof(out);
  out.d_model = d.d_model;
  out.d_ff = d.d_ff;
  out.n_layers = d.n_layers;
  out.n_heads = d.n_heads;
  out.n_kv_heads = d.n_kv_heads;
  out.head_dim = d.head_dim;
  out.vocab = d.vocab;
  out.seed = d.seed;
  return out;
}

qllm_generate_options default_generate_options() {
  const GenerateOptions d;
  qllm_generate_options out = {};
  out.struct_size = sizeof(out);
  out.max_tokens = d.max_tokens;
  out.seed = d.seed;
  out.temperature = d.temperature;
  out.top_p = d.top_p;
  out.min_p = d.min_p;
  out.repeat_penalty = d.repeat_penalty;
  out.top_k = d.top_k;
  out.repeat_window = d.repeat_window;
  out.ignore_end = d.ignore_end ? 1 : 0;
  out.add_special = d.add_special ? 1 : 0;
  out.parse_special = d.parse_special ? 1 : 0;
  return out;
}

OpenOptions to_cpp(const qllm_open_options* given) {
  const auto o = read_struct(given, default_open_options(), "qllm_open_options");
  OpenOptions out;
  if (o.device != nullptr) out.device = o.device;
  out.scheme = string_or_empty(o.scheme);
  out.isa = string_or_empty(o.isa);
  out.cpus = string_or_empty(o.cpus);
  out.max_batch_tokens = o.max_batch_tokens;
  out.threads = o.threads;
  out.large_pages = o.large_pages != 0;
  out.rotate = o.rotate != 0;
  if (o.kv_format != nullptr) out.kv_format = o.kv_format;
  out.kv_memory_bytes = o.kv_memory_bytes;
  if (o.memory != nullptr) out.memory = o.memory;
  out.cache_folder = string_or_empty(o.cache_folder);
  out.cache_bytes = o.cache_bytes;
  out.lock_memory = o.lock_memory != 0;
  out.numa = string_or_empty(o.numa);
  out.gpu_layers = o.gpu_layers;
  if (o.log != nullptr) {
    out.log = [fn = o.log, user = o.log_user](int level, std::string_view line) {
      fn(level, std::string(line).c_str(), user);
    };
  }
  if (o.progress != nullptr) {
    out.progress = [fn = o.progress, user = o.progress_user](std::string_view stage, double part) {
      return fn(std::string(stage).c_str(), part, user) == 0;
    };
  }
  return out;
}

SyntheticShape to_cpp(const qllm_synthetic_shape* given) {
  const auto s = read_struct(given, default_shape(), "qllm_synthetic_shape");
  SyntheticShape out;
  out.d_model = s.d_model;
  out.d_ff = s.d_ff;
  out.n_layers = s.n_layers;
  out.n_heads = s.n_heads;
  out.n_kv_heads = s.n_kv_heads;
  out.head_dim = s.head_dim;
  out.vocab = s.vocab;
  out.seed = s.seed;
  return out;
}

GenerateOptions to_cpp(const qllm_generate_options* given) {
  const auto o = read_struct(given, default_generate_options(), "qllm_generate_options");
  GenerateOptions out;
  out.max_tokens = o.max_tokens;
  out.temperature = o.temperature;
  out.top_k = o.top_k;
  out.top_p = o.top_p;
  out.min_p = o.min_p;
  out.repeat_penalty = o.repeat_penalty;
  out.repeat_window = o.repeat_window;
  out.seed = o.seed;
  out.ignore_end = o.ignore_end != 0;
  out.add_special = o.add_special != 0;
  out.parse_special = o.parse_special != 0;
  return out;
}

qllm_model_info to_c(const ModelInfo& info) {
  qllm_model_info out = {};
  out.architecture = info.architecture.c_str();
  out.name = info.name.c_str();
  out.tokenizer = info.tokenizer.c_str();
  out.vocab_size = info.vocab_size;
  out.d_model = info.d_model;
  out.d_ff = info.d_ff;
  out.n_layers = info.n_layers;
  out.n_heads = info.n_heads;
  out.n_kv_heads = info.n_kv_heads;
  out.head_dim = info.head_dim;
  out.rotary_dim = info.rotary_dim;
  out.context_length = info.context_length;
  out.parameters = info.parameters;
  out.file_bytes = info.file_bytes;
  out.weight_bytes = info.weight_bytes;
  out.bytes_per_token = info.bytes_per_token;
  out.kv_bytes_per_token = info.kv_bytes_per_token;
  out.rms_norm_eps = info.rms_norm_eps;
  out.rope_base = info.rope_base;
  out.tied_lm_head = info.tied_lm_head ? 1 : 0;
  out.has_chat_template = info.has_chat_template ? 1 : 0;
  out.scheme = info.scheme.c_str();
  out.rotated = info.rotated ? 1 : 0;
  return out;
}

qllm_placement to_c(const PlacementInfo& info) {
  qllm_placement out = {};
  out.local_bytes = info.local_bytes;
  out.remote_bytes = info.remote_bytes;
  out.nowhere_bytes = info.nowhere_bytes;
  out.remote_bytes_per_step = info.remote_bytes_per_step;
  out.known = info.known ? 1 : 0;
  out.bound = info.bound ? 1 : 0;
  return out;
}

qllm_generate_result to_c(const GenerateResult& result) {
  qllm_generate_result out = {};
  out.prompt_tokens = result.prompt_tokens;
  out.reused_tokens = result.reused_tokens;
  out.generated_tokens = result.generated_tokens;
  out.ttft_s = result.ttft_s;
  out.decode_s = result.decode_s;
  out.finish_reason = static_cast<qllm_finish_reason>(result.finish_reason);
  return out;
}

qllm_trace_info to_c(const TraceInfo& info) {
  qllm_trace_info out = {};
  out.steps = info.steps;
  out.spans = info.spans;
  out.dropped_steps = info.dropped_steps;
  out.dropped_spans = info.dropped_spans;
  return out;
}

std::string describe(const MachineInfo& machine) {
  std::string out = "cpu: " + machine.cpu + "\n";
  out += "tiers: " + joined(machine.isa) + " (used: " + machine.isa_used + ")\n";
  out += "packages: " + std::to_string(machine.packages) + "\n";
  out += "NUMA nodes: " + std::to_string(machine.numa_nodes) + "\n";
  out += "cores: " + std::to_string(machine.cores) + "\n";
  out += "workers: " + std::to_string(machine.workers) + " on CPUs " + joined(machine.cpus) + "\n";
  out += "memory: " + std::to_string(machine.memory_bytes) + " bytes\n";
  for (const auto& note : machine.notes) out += "note: " + note + "\n";
  return out;
}

}  // namespace qllm::c
