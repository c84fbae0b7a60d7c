#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/math.h"
#include "graph/builder.h"
#include "quant/packing.h"

namespace qllm {
namespace {

/// inv_freq[i] = base^(-2i / rotary_dim) / linear_scale / freq_factor[i]
std::vector<float> inverse_frequencies(const ModelConfig& c) {
  std::vector<float> inv(static_cast<size_t>(c.rotary_dim / 2));
  for (size_t i = 0; i < inv.size(); ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(c.rotary_dim);
    double f = std::pow(static_cast<double>(c.rope_base), exponent) / c.rope_linear_scale;
    if (!c.rope_freq_factors.empty()) f /= c.rope_freq_factors[i];
    inv[i] = static_cast<float>(f);
  }
  return inv;
}

/// gate and up by turns in blocks of 64 outputs, so that one pass yields both halves of SwiGLU.
std::vector<RowSpan> interleave_gate_up(const std::string& prefix, int64_t d_ff) {
  std::vector<RowSpan> rows;
  for (int64_t r = 0; r < d_ff; r += kBlockN) {
    const int64_t count = std::min(kBlockN, d_ff - r);
    rows.push_back({prefix + "ffn_gate.weight", r, 2 * r, count});
    rows.push_back({prefix + "ffn_up.weight", r, 2 * r + kBlockN, count});
  }
  return rows;
}

class LlamaBuilder {
 public:
  LlamaBuilder(const ModelConfig& config, const Rotations& rotations)
      : c_(config),
        rotations_(rotations),
        q_width_(config.n_heads * config.head_dim),
        kv_width_(config.n_kv_heads * config.head_dim),
        inv_freq_(inverse_frequencies(config)) {}

  Graph build() {
    ValueId x = b_.embed(b_.embedding_weight("token_embd.weight", c_.vocab_size, c_.d_model));
    for (int32_t layer = 0; layer < c_.n_layers; ++layer) {
      x = attention_block(x, layer);     // [tokens, d_model]
      x = feed_forward_block(x, layer);  // [tokens, d_model]
    }
    x = b_.select_rows(x);                      // [outputs, d_model]
    x = norm(x, "output_norm.weight");          // [outputs, d_model]
    return b_.finish(b_.linear(x, lm_head()));  // [outputs, vocab]
  }

 private:
  ValueId norm(ValueId x, const std::string& gain) {
    const WeightId weight = rotations_.residual ? kNone : b_.vector_weight(gain, c_.d_model);
    return b_.rms_norm(x, weight, c_.rms_norm_eps, gain);
  }

  ValueId attention_block(ValueId x, int32_t layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    ValueId h = norm(x, prefix + "attn_norm.weight");
    h = b_.linear(h, qkv_weight(prefix), qkv_bias(prefix));  // [tokens, q_width + 2 kv_width]
    h = b_.rope_kv_write(h, rope(layer));                    // [tokens, q_width]
    h = b_.attention(h, attention(layer));                   // [tokens, q_width]
    const WeightId out = b_.linear_weight(prefix + "attn_output.weight", c_.d_model, q_width_,
                                          {{prefix + "attn_output.weight", 0, 0, c_.d_model}});
    return b_.linear(h, out, kNone, x);
  }

  ValueId feed_forward_block(ValueId x, int32_t layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    ValueId h = norm(x, prefix + "ffn_norm.weight");
    const WeightId gate_up =
        b_.linear_weight(prefix + "ffn_gate_up", 2 * round_up(c_.d_ff, kBlockN), c_.d_model,
                         interleave_gate_up(prefix, c_.d_ff));
    h = b_.linear(h, gate_up);                                          // [tokens, 2 d_ff]
    h = b_.swiglu(h, c_.d_ff, rotations_.ffn ? kFfnRotationBlock : 0);  // [tokens, d_ff]
    const WeightId down = b_.linear_weight(prefix + "ffn_down.weight", c_.d_model, c_.d_ff,
                                           {{prefix + "ffn_down.weight", 0, 0, c_.d_model}});
    return b_.linear(h, down, kNone, x);
  }

  std::vector<RowSpan> qkv_rows(const std::string& prefix, const std::string& suffix) const {
    return {{prefix + "attn_q" + suffix, 0, 0, q_width_},
            {prefix + "attn_k" + suffix, 0, q_width_, kv_width_},
            {prefix + "attn_v" + suffix, 0, q_width_ + kv_width_, kv_width_, true}};
  }

  WeightId qkv_weight(const std::string& prefix) {
    return b_.linear_weight(prefix + "attn_qkv", q_width_ + 2 * kv_width_, c_.d_model,
                            qkv_rows(prefix, ".weight"));
  }

  WeightId qkv_bias(const std::string& prefix) {
    if (!c_.attention_bias) return kNone;
    return b_.vector_weight(prefix + "attn_qkv.bias", q_width_ + 2 * kv_width_,
                            qkv_rows(prefix, ".bias"));
  }

  RopeKvWriteOp rope(int32_t layer) const {
    RopeKvWriteOp op;
    op.layer = layer;
    op.n_heads = static_cast<int32_t>(c_.n_heads);
    op.n_kv_heads = static_cast<int32_t>(c_.n_kv_heads);
    op.head_dim = static_cast<int32_t>(c_.head_dim);
    op.style = c_.rope_style;
    op.inv_freq = inv_freq_;
    return op;
  }

  AttentionOp attention(int32_t layer) const {
    AttentionOp op;
    op.layer = layer;
    op.n_heads = static_cast<int32_t>(c_.n_heads);
    op.n_kv_heads = static_cast<int32_t>(c_.n_kv_heads);
    op.head_dim = static_cast<int32_t>(c_.head_dim);
    op.scale = 1.0F / std::sqrt(static_cast<float>(c_.head_dim));
    return op;
  }

  WeightId lm_head() {
    const std::string tensor =
        c_.tied_lm_head && !rotations_.residual ? "token_embd.weight" : "output.weight";
    return b_.lm_head_weight("lm_head", c_.vocab_size, c_.d_model, {{tensor, 0, 0, c_.vocab_size}});
  }

  const ModelConfig& c_;
  const Rotations& rotations_;
  int64_t q_width_;
  int64_t kv_width_;
  std::vector<float> inv_freq_;
  GraphBuilder b_;
};

}  // namespace

Graph build_llama(const ModelConfig& config, const Rotations& rotations) {
  return LlamaBuilder(config, rotations).build();
}

}  // namespace qllm
