// What bounds a model on a device: bytes and operations of every op of a step, and the least time
// that they take (docs/roofline.md has the formulas). Nothing here runs a model.
//
//   using namespace qllm::roofline;
//   const Shape shape = preset("llama-8b");
//   const Estimate e = estimate(shape, {.phase = Phase::decode, .batch = 4}, device("h100-sxm"));
//
// Counts are exact integers; what does not fit into 63 bits is an Error (invalid_argument).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qllm/error.hpp"
#include "qllm/qllm.hpp"

namespace qllm::roofline {

/// Dimensions of a LLaMA-like decoder, with or without experts.
struct Shape {
  std::string name;
  std::string source = {};  ///< where the dimensions come from
  int64_t vocab = 0, d_model = 0, d_ff = 0, n_layers = 0;
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  bool qkv_bias = false;
  bool qk_norm = false;        ///< a norm of each head's query and key
  int64_t sliding_window = 0;  ///< tokens that a token attends to at most; 0: all
  int64_t n_moe_layers = 0;    ///< layers with experts; the others have one FFN of d_ff
  int64_t n_experts = 0, n_experts_used = 0;
  int64_t d_ff_expert = 0;
  int64_t d_ff_shared = 0;               ///< of the expert that every token takes; 0: none
  std::vector<TensorInfo> tensors = {};  ///< of a model file; what the scheme "keep" stands on
};

/// Names of the built-in shapes: "llama-32b", "llama-8b", "mixtral-8x7b", …
QLLM_API std::vector<std::string> preset_names();
/// Throws invalid_argument, naming what there is.
QLLM_API Shape preset(std::string_view name);
/// From the text of a Hugging Face config.json (llama, mistral, qwen2, qwen3, mixtral, qwen2_moe,
/// qwen3_moe). Throws bad_format naming the key, unsupported for another model_type.
QLLM_API Shape shape_from_config(std::string_view json, const std::string& origin);
/// Throws also not_found, io; a folder stands for the config.json in it.
QLLM_API Shape shape_from_config_file(const std::string& path);
/// What inspect_model() found in a model file.
QLLM_API Shape shape_from_model(const ModelInfo& info, const std::string& path);
/// Throws bad_format for a dimension out of range, naming it.
QLLM_API void validate(const Shape& shape);
/// Weights of the FFN's matrices in all layers, all experts included.
QLLM_API int64_t ffn_parameters(const Shape& shape);

/// A processor as the model sees it. 0 is "not known".
struct Device {
  /// What its kernels make of weights in this scheme and so many tokens where memory does not bind.
  using Kernel = MachineCeilings::Kernel;

  std::string id;     ///< "h100-sxm"
  std::string title;  ///< "NVIDIA H100 SXM 80 GB"
  bool is_gpu = false;
  bool measured = false;   ///< else from the data sheet
  double read_gbps = 0;    ///< memory, 1e9 bytes/s
  double int8_tops = 0;    ///< dense, 1e12 operations/s; a multiply-add is two
  double fp16_tflops = 0;  ///< dense, float32 sums
  double fp32_tflops = 0;
  std::vector<Kernel> kernels = {};  ///< measured; they hold instead of int8_tops where given
  double memory_gb = 0;              ///< on the device, 1e9 bytes
  double tdp_w = 0;
  double pcie_gbps = 0;    ///< to the host, one direction
  std::string source;      ///< title, publisher and year of the data sheet; or how it was measured
  std::string derivation;  ///< how figures came about that no sheet states
};

/// All rows of the table of data sheets.
QLLM_API std::vector<Device> devices();
/// Throws not_found, naming what there is.
QLLM_API Device device(std::string_view id);
/// Rows in the form of lib/roofline/devices.json. Throws bad_format.
QLLM_API std::vector<Device> parse_devices(std::string_view json, const std::string& origin);

enum class Phase { prefill, decode };
QLLM_API std::string_view to_string(Phase phase);

/// One step: decode makes one token for each of `batch` sequences, prefill takes their whole
/// prompts.
struct Workload {
  Phase phase = Phase::decode;
  int64_t batch = 1;       ///< sequences
  int64_t context = 2048;  ///< decode: tokens attended to, the new one included; prefill: prompt
  std::string scheme = "int8";  ///< of the weights: as --scheme, and "fp16"
  std::string kv = "bf16";      ///< "bf16" or "int8"
  int64_t draft = 0;            ///< decode: guessed tokens that the step checks besides
};

/// Which peak rate an op is held against.
enum class Arithmetic { int8, fp16, fp32 };

/// One kind of op, over all layers of a step.
struct OpCost {
  std::string name;              ///< "gate", "qk", "lm_head", …
  int64_t count = 0;             ///< how many there are in a step
  int64_t weight_bytes = 0;      ///< as packed: with padding, scales and sums
  int64_t kv_bytes = 0;          ///< keys and values read or written
  int64_t activation_bytes = 0;  ///< inputs and outputs that pass through memory
  int64_t operations = 0;        ///< a multiply-add is two
  Arithmetic arithmetic = Arithmetic::fp32;
  bool is_ffn = false;
  int64_t tokens = 0;        ///< that meet each weight; 0: no matrix
  std::string weights = {};  ///< of a matrix: "int8", "int4-g128", "keep", "fp16", "fp32"

  int64_t bytes() const { return weight_bytes + kv_bytes + activation_bytes; }
  double intensity() const {
    return bytes() == 0 ? 0.0 : static_cast<double>(operations) / static_cast<double>(bytes());
  }
};

/// In the order in which a step runs them. Throws invalid_argument for a workload out of range,
/// unsupported for a scheme that the shape cannot be held in.
QLLM_API std::vector<OpCost> count_ops(const Shape& shape, const Workload& workload);
/// Bytes that the weights take in memory; the embedding table is not among them (its rows are read
/// from the file).
QLLM_API int64_t weight_bytes(const Shape& shape, const std::string& scheme);
/// Keys and values of one token of context, in bytes.
QLLM_API int64_t kv_bytes_per_token(const Shape& shape, const std::string& kv);

struct OpEstimate {
  OpCost cost;
  bool is_compute_bound = false;
  double min_time_s = 0;  ///< the longer of the two below
  double memory_s = 0;    ///< bytes / read_gbps
  double compute_s = 0;   ///< operations / peak; 0 where that is not known
};

struct Estimate {
  Workload workload;
  std::vector<OpEstimate> ops;
  double step_s = 0;        ///< sum over the ops: one behind the other
  double memory_s = 0;      ///< what the bytes alone would take
  double compute_s = 0;     ///< what the operations alone would take
  double tokens_per_s = 0;  ///< of all sequences; prefill: prompt tokens
  int64_t bytes = 0;        ///< of the step
  int64_t operations = 0;
  int64_t held_bytes = 0;  ///< weights and KV caches in memory
  bool fits = true;        ///< held_bytes <= memory_gb, or that is not known
};

QLLM_API Estimate estimate(const Shape& shape, const Workload& workload, const Device& device);

/// The least number of sequences whose decode step finds the FFN's matrices bound by arithmetic;
/// 0: not below 65,536, or the peak is not known.
QLLM_API int64_t ffn_compute_bound_batch(const Shape& shape, const Workload& workload,
                                         const Device& device);

/// What a change would buy in decode.
struct WhatIf {
  std::string name;  ///< "int4", "batch", "experts", "speculation", "bandwidth", "kv"
  std::string description;
  double tokens_per_s = 0;
  double gain = 1;  ///< over the workload as it is
};
QLLM_API std::vector<WhatIf> what_if(const Shape& shape, const Workload& workload,
                                     const Device& device);

}  // namespace qllm::roofline
