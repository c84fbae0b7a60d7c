// check_tensors: the list of what the architecture reads, with the shape of each.
#include <string>
#include <unordered_set>
#include <vector>

#include "core/error.h"
#include "model/gguf_config.h"

namespace qllm {
namespace {

class TensorChecker {
 public:
  /// `packed`: matrices that only linears read are elsewhere.
  TensorChecker(const GgufFile& file, const ModelConfig& config, bool packed)
      : file_(file), c_(config), packed_(packed) {}

  void run() {
    expect("token_embd.weight", {c_.vocab_size, c_.d_model});
    expect("output_norm.weight", {c_.d_model});
    if (!c_.tied_lm_head) expect_linear("output.weight", {c_.vocab_size, c_.d_model});
    for (int64_t layer = 0; layer < c_.n_layers; ++layer) check_layer(layer);
    refuse_the_rest();
  }

 private:
  void check_layer(int64_t layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const int64_t q_width = c_.n_heads * c_.head_dim;
    const int64_t kv_width = c_.n_kv_heads * c_.head_dim;
    expect(prefix + "attn_norm.weight", {c_.d_model});
    expect_linear(prefix + "attn_q.weight", {q_width, c_.d_model});
    expect_linear(prefix + "attn_k.weight", {kv_width, c_.d_model});
    expect_linear(prefix + "attn_v.weight", {kv_width, c_.d_model});
    expect_linear(prefix + "attn_output.weight", {c_.d_model, q_width});
    if (c_.attention_bias) {
      expect(prefix + "attn_q.bias", {q_width});
      expect(prefix + "attn_k.bias", {kv_width});
      expect(prefix + "attn_v.bias", {kv_width});
    }
    expect(prefix + "ffn_norm.weight", {c_.d_model});
    expect_linear(prefix + "ffn_gate.weight", {c_.d_ff, c_.d_model});
    expect_linear(prefix + "ffn_up.weight", {c_.d_ff, c_.d_model});
    expect_linear(prefix + "ffn_down.weight", {c_.d_model, c_.d_ff});
  }

  void expect_linear(const std::string& name, const std::vector<int64_t>& shape) {
    if (!packed_) expect(name, shape);
  }

  void expect(const std::string& name, const std::vector<int64_t>& shape) {
    const GgufTensor& tensor = file_.tensor(name);
    require(tensor.shape == shape, ErrorCode::bad_format,
            "{}: tensor {}: expected [{}], found [{}]", file_.origin(), name,
            fmt::join(shape, ", "), fmt::join(tensor.shape, ", "));
    read_.insert(tensor.name);
  }

  /// Tables of frequencies that older writers left in the file and that follow from the metadata.
  static bool is_redundant(std::string_view name) {
    return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight") ||
           name.ends_with(".attn_rot_embd") || name.ends_with(".rotary_emb.inv_freq");
  }

  // A tensor left unread (a bias, a second norm, an expert) would silently change the model.
  void refuse_the_rest() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      require(read_.contains(tensor.name) || is_redundant(tensor.name), ErrorCode::unsupported,
              "{}: tensor {}: not a part of architecture {} with {} layers", file_.origin(),
              tensor.name, c_.architecture, c_.n_layers);
    }
  }

  const GgufFile& file_;
  const ModelConfig& c_;
  bool packed_;
  std::unordered_set<std::string_view> read_;
};

}  // namespace

void check_tensors(const GgufFile& file, const ModelConfig& config) {
  TensorChecker(file, config, false).run();
}

void check_unpacked_tensors(const GgufFile& file, const ModelConfig& config) {
  TensorChecker(file, config, true).run();
}

}  // namespace qllm
