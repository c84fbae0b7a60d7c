// Which tensors of the LLaMA architecture read the rotated residual, and which write it.
#include <map>
#include <utility>

#include "model/llama.h"
#include "model/rotated_source.h"

namespace qllm {
namespace {

class LlamaRotation {
 public:
  LlamaRotation(const ModelConfig& config, const Rotations& rotations) : c_(config) {
    if (rotations.residual) residual_ = {Turn::Kind::residual, 0};
    if (rotations.heads) heads_ = {Turn::Kind::hadamard, config.head_dim};
    if (rotations.ffn) ffn_ = {Turn::Kind::hadamard, kFfnRotationBlock};
  }

  std::map<std::string, TensorRotation> build() {
    const bool residual = residual_.kind != Turn::Kind::none;
    add("token_embd.weight", c_.vocab_size, c_.d_model, {}, residual_);
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) {
      add_layer("blk." + std::to_string(layer) + ".");
    }
    add("output.weight", c_.vocab_size, c_.d_model, "output_norm.weight", residual_);
    if (residual && c_.tied_lm_head) all_["output.weight"].source = "token_embd.weight";
    return std::move(all_);
  }

 private:
  void add_layer(const std::string& prefix) {
    const int64_t q_width = c_.n_heads * c_.head_dim;
    const int64_t kv_width = c_.n_kv_heads * c_.head_dim;
    const std::string attn_norm = prefix + "attn_norm.weight";
    const std::string ffn_norm = prefix + "ffn_norm.weight";
    add(prefix + "attn_q.weight", q_width, c_.d_model, attn_norm, residual_);
    add(prefix + "attn_k.weight", kv_width, c_.d_model, attn_norm, residual_);
    add(prefix + "attn_v.weight", kv_width, c_.d_model, attn_norm, residual_, heads_);
    if (c_.attention_bias) add(prefix + "attn_v.bias", 1, kv_width, {}, heads_);
    add(prefix + "attn_output.weight", c_.d_model, q_width, {}, heads_, residual_);
    add(prefix + "ffn_gate.weight", c_.d_ff, c_.d_model, ffn_norm, residual_);
    add(prefix + "ffn_up.weight", c_.d_ff, c_.d_model, ffn_norm, residual_);
    add(prefix + "ffn_down.weight", c_.d_model, c_.d_ff, {}, ffn_, residual_);
  }

  /// Gains are folded only where the residual is rotated.
  void add(const std::string& name, int64_t rows, int64_t columns, const std::string& gain,
           const Turn& turn_columns, const Turn& turn_rows = {}) {
    if (turn_columns.kind == Turn::Kind::none && turn_rows.kind == Turn::Kind::none) return;
    const bool folds = residual_.kind != Turn::Kind::none;
    all_[name] = {name, rows, columns, folds ? gain : std::string(), turn_columns, turn_rows};
  }

  const ModelConfig& c_;
  Turn residual_, heads_, ffn_;
  std::map<std::string, TensorRotation> all_;
};

}  // namespace

Rotations llama_rotations(const ModelConfig& config) {
  Rotations rotations;
  rotations.residual = ResidualRotation::supports(config.d_model);
  rotations.heads = config.head_dim > 1 && (config.head_dim & (config.head_dim - 1)) == 0;
  rotations.ffn = config.d_ff % kFfnRotationBlock == 0;
  return rotations;
}

std::shared_ptr<const TensorSource> rotate_llama(const ModelConfig& config,
                                                 const Rotations& rotations,
                                                 std::shared_ptr<const TensorSource> source) {
  if (!rotations.any()) return source;
  std::shared_ptr<const ResidualRotation> residual;
  if (rotations.residual) residual = std::make_shared<ResidualRotation>(config.d_model);
  return std::make_shared<RotatedSource>(std::move(source),
                                         LlamaRotation(config, rotations).build(), residual);
}

}  // namespace qllm
