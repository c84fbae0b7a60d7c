// The closed list of ops, and the graph: a straight list of ops over values in single-assignment
// form. A value is a matrix [rows, width] of float32 in meaning; how a backend stores it (f32, or
// u8 with a scale per token where only linears read it) is the backend's choice.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace qllm {

using ValueId = int32_t;
using WeightId = int32_t;
inline constexpr int32_t kNone = -1;

/// How many rows a value has: one per token of the step, or one per requested output row.
enum class Rows : uint8_t { tokens, outputs };

struct Value {
  std::string name;
  Rows rows = Rows::tokens;
  int64_t width = 0;
};

/// Rows [row, row+count) of a weight come from rows [tensor_row, …) of a tensor in the model file.
/// Rows that no span names are zero.
struct RowSpan {
  std::string tensor;
  int64_t tensor_row = 0;
  int64_t row = 0;
  int64_t count = 0;
  bool sensitive = false;  // int8 takes two terms: what rounds here costs the most quality
};

/// What a weight is used for; decides how a backend stores it.
enum class WeightRole : uint8_t {
  linear,     ///< W[n, k] of y = x W^T: quantized and packed
  embedding,  ///< [n, k], gathered by row; may stay in the file
  vector,     ///< [1, k] float32: norm gains, biases
};

struct Weight {
  std::string name;
  WeightRole role = WeightRole::linear;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<RowSpan> rows;
  bool lm_head = false;  // the last linear: 8 bits under every scheme but keep
};

/// out[t, :] = input[t, :]: a value that another part of the model made (cut.h); one in a graph.
struct InputOp {
  ValueId out = kNone;
};

/// out[t, :] = table[token[t], :]
struct EmbedOp {
  WeightId table = kNone;
  ValueId out = kNone;
};

/// out[r, i] = in[r, i] * gain[i] / sqrt(mean_i(in[r, i]^2) + eps)   (arXiv 1910.07467)
struct RmsNormOp {
  ValueId in = kNone;
  WeightId gain = kNone;  // kNone: all ones
  float eps = 1e-5F;
  ValueId out = kNone;
};

/// out[r, n] = sum_k in[r, k] * W[n, k] (+ bias[n]) (+ residual[r, n])
struct LinearOp {
  ValueId in = kNone;
  WeightId weight = kNone;
  WeightId bias = kNone;
  ValueId residual = kNone;
  ValueId out = kNone;
};

/// Which pairs of a head's elements a rotation turns.
enum class RopeStyle : uint8_t {
  adjacent,  ///< (2i, 2i+1): the row order of GGUF files of the LLaMA architecture
  half,      ///< (i, i + rotary_dim/2): the row order of Hugging Face files ("NeoX")
};

/// Splits qkv = [n_heads q | n_kv_heads k | n_kv_heads v] of head_dim each; rotates q into `q` and
/// k into the cache of `layer` at the token's position, writes v beside it. Angle of pair i at
/// position p: p * inv_freq[i]   (RoFormer, arXiv 2104.09864). Elements past 2*inv_freq.size() of a
/// head are copied.
struct RopeKvWriteOp {
  ValueId qkv = kNone;
  ValueId q = kNone;
  int32_t layer = 0;
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  RopeStyle style = RopeStyle::adjacent;
  std::vector<float> inv_freq;  // [rotary_dim / 2], scaling included
};

/// Causal attention of each token over the cache of its sequence, itself included:
/// out[t, h] = sum_j softmax_j(cap(scale * q[t, h] . k[j, h / (n_heads/n_kv_heads)])) v[j, ...]
/// over the last `window` tokens; cap(s) = softcap * tanh(s / softcap), arXiv 2408.00118.
struct AttentionOp {
  ValueId q = kNone;
  ValueId out = kNone;
  int32_t layer = 0;
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 1.0F;
  int64_t window = 0;    // tokens seen, itself included; 0: all
  float softcap = 0.0F;  // 0: none
};

/// gate_up comes in blocks of 64 outputs, gate and up by turns:
/// out[r, i] = silu(g) * u,  g = gate_up[r, (i/64)*128 + i%64],  u = gate_up[r, (i/64)*128 + 64 +
/// i%64]
/// With `hadamard` = 64, d_ff a multiple of it, each block of 64 of out is then multiplied by
/// H[i, j] = (-1)^popcount(i & j) / 8.
struct SwiGluOp {
  ValueId gate_up = kNone;
  ValueId out = kNone;
  int32_t hadamard = 0;  // 0 or 64
};

/// out[r, :] = in[output_row[r], :]: only the rows whose logits were asked for go on.
struct SelectRowsOp {
  ValueId in = kNone;
  ValueId out = kNone;
};

using Op = std::variant<InputOp, EmbedOp, RmsNormOp, LinearOp, RopeKvWriteOp, AttentionOp, SwiGluOp,
                        SelectRowsOp>;

/// Built once per model by a GraphBuilder, then compiled once per backend.
struct Graph {
  std::vector<Value> values;
  std::vector<Weight> weights;
  std::vector<Op> ops;
  ValueId logits = kNone;  // the result: [outputs, vocab]; of a first part [tokens, d_model]

  const Value& value(ValueId id) const { return values[static_cast<size_t>(id)]; }
  const Weight& weight(WeightId id) const { return weights[static_cast<size_t>(id)]; }
};

/// "embed", "rms_norm", "linear", …: the words of dump().
const char* op_kind(const Op& op);

/// A short name of each op, by its layer and weight: "blk.3.attn_norm", "blk.3.attn_qkv",
/// "blk.3.rope_kv_write", "blk.3.attention", "blk.3.swiglu", "lm_head".
std::vector<std::string> op_labels(const Graph& graph);

/// One op a line, with the shape of each value: for people and for tests.
std::string dump(const Graph& graph);

}  // namespace qllm
