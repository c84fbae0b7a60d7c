// Bytes and operations of every op of a step. docs/roofline.md states each formula and works one
// layer by hand.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/math.h"
#include "quant/packing.h"
#include "roofline/count.h"
#include "roofline/formats.h"

namespace qllm::roofline {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kMaxBatch = int64_t{1} << 20;
constexpr int64_t kMaxContext = int64_t{1} << 30;
constexpr int64_t kMaxDraft = 1024;

// Operations per element where no matrix is: counted, not measured (docs/roofline.md).
constexpr int64_t kNormOps = 4;     // square, add, times 1/rms, times gain
constexpr int64_t kQuantOps = 3;    // maximum of magnitudes, times 1/scale, round
constexpr int64_t kRopeOps = 3;     // four multiplies and two adds turn a pair
constexpr int64_t kSoftmaxOps = 5;  // scale, maximum, subtract, exp, add
constexpr int64_t kSwiGluOps = 5;   // negate, exp, add, divide, multiply

void check(const Workload& w) {
  const auto within = [](const char* name, int64_t value, int64_t low, int64_t high) {
    require(value >= low && value <= high, ErrorCode::invalid_argument,
            "roofline: {}: expected {} to {}, found {}", name, low, high, value);
  };
  within("batch", w.batch, 1, kMaxBatch);
  within("context", w.context, 1, kMaxContext);
  within("draft", w.draft, 0, w.phase == Phase::decode ? kMaxDraft : 0);
  within("context", w.context, w.draft + 1, kMaxContext);
}

/// sum_{i=first}^{last} min(i, window): what tokens at these positions (from 1) attend to.
Count attended(int64_t first, int64_t last, int64_t window) {
  const int64_t bend = std::clamp(window, first - 1, last);  // up to here i, then window
  const Count rising = bend < first ? Count(0) : Count(bend - first + 1) * (first + bend);
  return Count(rising.value() / 2) + Count(last - bend) * window;
}

class Counter {
 public:
  Counter(const Shape& shape, const Workload& workload)
      : s_(shape),
        w_(workload),
        formats_(shape, workload.scheme),
        q_width_(shape.n_heads * shape.head_dim),
        kv_width_(shape.n_kv_heads * shape.head_dim),
        tokens_((Count(w_.batch) * (decodes() ? 1 + w_.draft : w_.context)).value()),
        outputs_(decodes() ? tokens_ : w_.batch) {}

  std::vector<OpCost> ops() {
    add({.name = "embedding",
         .count = 1,
         .weight_bytes = float_bytes(tokens_, s_.d_model).value(),
         .activation_bytes = float_bytes(tokens_, s_.d_model).value()});
    norms();
    quantization();
    projections();
    attention();
    if (s_.n_moe_layers < s_.n_layers) dense_ffn();
    if (s_.n_moe_layers > 0) experts();
    if (s_.n_moe_layers > 0 && s_.d_ff_shared > 0) shared_ffn();
    lm_head();
    return std::move(ops_);
  }

 private:
  bool decodes() const { return w_.phase == Phase::decode; }
  void add(OpCost op) { ops_.push_back(std::move(op)); }

  static Count float_bytes(Count tokens, Count width) { return tokens * width * kFloatBytes; }
  int64_t dense_layers() const { return s_.n_layers - s_.n_moe_layers; }

  void norms() {
    const Count layers = s_.n_layers;
    const Count head_gains = s_.qk_norm ? Count(2) * s_.head_dim : Count(0);
    const Count head_values = s_.qk_norm ? Count(q_width_) + kv_width_ : Count(0);
    const Count residual = (layers * 2 * tokens_ + outputs_) * s_.d_model;
    add({.name = "norm",
         .count = 2 * s_.n_layers + 1,
         .weight_bytes =
             (((layers * 2 + 1) * s_.d_model + layers * head_gains) * kFloatBytes).value(),
         .activation_bytes = (residual * kFloatBytes).value(),
         .operations = ((residual + layers * tokens_ * head_values) * kNormOps).value()});
  }

  // What linears read, written once; 16-bit and float schemes convert instead of quantizing.
  void quantization() {
    const Count layers = s_.n_layers;
    Count bytes = 0;
    Count values = 0;
    const auto stored = [&](Count tokens, int64_t k, std::string_view reader) {
      bytes += tokens * formats_.activation(k, reader);
      values += tokens * k;
    };
    stored(layers * tokens_, s_.d_model, "attn_q");
    stored(layers * tokens_, q_width_, "attn_output");
    stored(layers * tokens_, s_.d_model, "ffn_gate");
    stored(Count(dense_layers()) * tokens_, s_.d_ff, "ffn_down");
    stored(Count(s_.n_moe_layers) * tokens_ * s_.n_experts_used, s_.d_ff_expert, "ffn_down");
    if (s_.d_ff_shared > 0) {
      stored(Count(s_.n_moe_layers) * tokens_, s_.d_ff_shared, "ffn_down");
    }
    stored(outputs_, s_.d_model, "output");
    add({.name = "quantize",
         .count = 4 * s_.n_layers + 1,
         .activation_bytes = bytes.value(),
         .operations = (values * (formats_.quantizes() ? kQuantOps : 1)).value()});
  }

  // y[tokens, n] = x[tokens, k] W[n, k]^T in `layers` layers; `reads_input` is false where the
  // matrix shares its pass over x with the one before it.
  struct Linear {
    const char* name;
    const char* tensor;
    int64_t layers;
    int64_t n;
    int64_t k;
    int64_t rows;  // stored, padding included
    bool reads_input = true;
    int64_t output_bytes = 0;  // of a token, through memory
    bool is_ffn = false;
    int64_t bias = 0;
    int64_t second_rows = 0;  // stored with a second int8 term (quant/scheme.h)
  };

  void linear(const Linear& l) {
    const Count layers = l.layers;
    const Count rows = layers * tokens_;
    Count weights = linear_bytes(formats_.linear(l.tensor), l.rows + l.second_rows, l.k);
    weights += Count(l.bias) * kFloatBytes;
    Count activations = rows * l.output_bytes;
    if (l.reads_input) activations += rows * formats_.activation(l.k, l.tensor);
    add({.name = l.name,
         .count = l.layers,
         .weight_bytes = (layers * weights).value(),
         .activation_bytes = activations.value(),
         .operations = (rows * l.n * l.k * (l.second_rows > 0 ? 4 : 2)).value(),
         .arithmetic = formats_.arithmetic(),
         .is_ffn = l.is_ffn,
         .tokens = tokens_,
         .weights = formats_.name(l.tensor)});
  }

  int64_t padded(const char* tensor, int64_t rows) const {
    return padded_rows(formats_.linear(tensor), rows);
  }

  // Q, K and V are one matrix: padded together (the padding is V's), one pass over the input. Under
  // int8 each block of 64 rows that holds one of V has two terms, the second here put down to V.
  void projections() {
    const int64_t q_bytes = q_width_ * kFloatBytes;
    const int64_t all = padded("attn_q", q_width_ + 2 * kv_width_);
    const int64_t before_v = q_width_ + kv_width_;
    const int64_t second = formats_.two_terms("attn_v") ? all - before_v / kBlockN * kBlockN : 0;
    const int64_t bias_q = s_.qkv_bias ? q_width_ : 0;
    const int64_t bias_kv = s_.qkv_bias ? kv_width_ : 0;
    linear({.name = "q",
            .tensor = "attn_q",
            .layers = s_.n_layers,
            .n = q_width_,
            .k = s_.d_model,
            .rows = q_width_,
            .output_bytes = q_bytes,
            .bias = bias_q});
    linear({.name = "k",
            .tensor = "attn_k",
            .layers = s_.n_layers,
            .n = kv_width_,
            .k = s_.d_model,
            .rows = kv_width_,
            .reads_input = false,
            .bias = bias_kv});
    linear({.name = "v",
            .tensor = "attn_v",
            .layers = s_.n_layers,
            .n = kv_width_,
            .k = s_.d_model,
            .rows = all - before_v,
            .reads_input = false,
            .bias = bias_kv,
            .second_rows = second});
  }

  void attention() {
    const Count layers = s_.n_layers;
    const Count vector = kv_vector_bytes(w_.kv, s_.head_dim);
    const int64_t window = s_.sliding_window > 0 ? s_.sliding_window : kMaxContext;
    const int64_t first = decodes() ? w_.context - w_.draft : 1;
    const Count pairs = layers * w_.batch * attended(first, w_.context, window);
    // Each key is read once for all query heads that share it, and for all tokens of the step.
    const int64_t reach = decodes() ? std::min(w_.context, window + w_.draft) : w_.context;
    const Count kv_read = layers * w_.batch * reach * s_.n_kv_heads * vector;
    const Count new_values = layers * tokens_ * kv_width_ * 2;
    const Count turned = layers * tokens_ * (Count(q_width_) + kv_width_);

    add({.name = "rope", .count = s_.n_layers, .operations = (turned * kRopeOps).value()});
    add({.name = "kv_write",
         .count = s_.n_layers,
         .kv_bytes = (layers * tokens_ * 2 * s_.n_kv_heads * vector).value(),
         .operations = (new_values * (w_.kv == "int8" ? kQuantOps : 1)).value()});
    add({.name = "qk",
         .count = s_.n_layers,
         .kv_bytes = kv_read.value(),
         .activation_bytes = (layers * float_bytes(tokens_, q_width_)).value(),
         .operations = (pairs * q_width_ * 2).value(),
         .arithmetic = Arithmetic::fp16});
    add({.name = "softmax",
         .count = s_.n_layers,
         .operations = (pairs * s_.n_heads * kSoftmaxOps).value()});
    add({.name = "av",
         .count = s_.n_layers,
         .kv_bytes = kv_read.value(),
         .operations = (pairs * q_width_ * 2).value(),
         .arithmetic = Arithmetic::fp16});
    linear({.name = "o",
            .tensor = "attn_output",
            .layers = s_.n_layers,
            .n = s_.d_model,
            .k = q_width_,
            .rows = padded("attn_output", s_.d_model),
            .output_bytes = residual_bytes()});
  }

  // The residual is read, added to and written.
  int64_t residual_bytes() const { return 2 * s_.d_model * kFloatBytes; }

  // gate and up are interleaved: one pass over the input, and what they make stays in cache.
  void ffn(const char* gate, const char* up, const char* swiglu, const char* down, int64_t layers,
           int64_t d_ff) {
    linear({.name = gate,
            .tensor = "ffn_gate",
            .layers = layers,
            .n = d_ff,
            .k = s_.d_model,
            .rows = padded("ffn_gate", d_ff),
            .is_ffn = true});
    linear({.name = up,
            .tensor = "ffn_up",
            .layers = layers,
            .n = d_ff,
            .k = s_.d_model,
            .rows = padded("ffn_up", d_ff),
            .reads_input = false,
            .is_ffn = true});
    add({.name = swiglu,
         .count = layers,
         .operations = (Count(layers) * tokens_ * d_ff * kSwiGluOps).value()});
    linear({.name = down,
            .tensor = "ffn_down",
            .layers = layers,
            .n = s_.d_model,
            .k = d_ff,
            .rows = padded("ffn_down", s_.d_model),
            .output_bytes = residual_bytes(),
            .is_ffn = true});
  }

  void dense_ffn() { ffn("gate", "up", "swiglu", "down", dense_layers(), s_.d_ff); }
  void shared_ffn() {
    ffn("shared_gate", "shared_up", "shared_swiglu", "shared_down", s_.n_moe_layers,
        s_.d_ff_shared);
  }

  void experts() {
    const Count layers = s_.n_moe_layers;
    const Count rows = layers * tokens_;
    const Count routed = rows * s_.n_experts_used;
    add({.name = "router",
         .count = s_.n_moe_layers,
         .weight_bytes = (layers * s_.n_experts * s_.d_model * kFloatBytes).value(),
         .activation_bytes = (rows * formats_.activation(s_.d_model, "ffn_gate") +
                              rows * s_.n_experts * kFloatBytes)
                                 .value(),
         .operations = (rows * s_.n_experts * s_.d_model * 2).value()});
    const auto expert = [&](const char* name, const char* tensor, int64_t n, int64_t k,
                            Count activations) {
      const Count one = linear_bytes(formats_.linear(tensor), padded(tensor, n), k);
      add({.name = name,
           .count = s_.n_moe_layers,
           .weight_bytes = touched(one * s_.n_experts, layers).value(),
           .activation_bytes = activations.value(),
           .operations = (routed * n * k * 2).value(),
           .arithmetic = formats_.arithmetic(),
           .is_ffn = true,
           .tokens = std::max<int64_t>(1, tokens_of_an_expert()),
           .weights = formats_.name(tensor)});
    };
    const int64_t d_ff = s_.d_ff_expert;
    expert("expert_gate", "ffn_gate", d_ff, s_.d_model,
           routed * formats_.activation(s_.d_model, "ffn_gate"));
    expert("expert_up", "ffn_up", d_ff, s_.d_model, 0);
    add({.name = "expert_swiglu",
         .count = s_.n_moe_layers,
         .operations = (routed * d_ff * kSwiGluOps).value()});
    expert("expert_down", "ffn_down", s_.d_model, d_ff,
           routed * formats_.activation(d_ff, "ffn_down") + rows * residual_bytes());
  }

  // Of the bytes of all experts of a layer, those that the step's tokens are expected to need, if
  // each token chose its experts evenly and by itself: 1 - (1 - used/all)^tokens of them.
  Count touched(Count all_experts, Count layers) const {
    const Count all = all_experts * layers;
    return std::llround(touched_share() * static_cast<double>(all.value()));
  }
  double touched_share() const {
    const double miss =
        1.0 - static_cast<double>(s_.n_experts_used) / static_cast<double>(s_.n_experts);
    return 1.0 - std::pow(miss, static_cast<double>(tokens_));
  }

  /// On average over the experts that are touched, rounded up.
  int64_t tokens_of_an_expert() const {
    const double experts = std::max(1.0, touched_share() * static_cast<double>(s_.n_experts));
    return std::llround(
        std::ceil(static_cast<double>(tokens_) * static_cast<double>(s_.n_experts_used) / experts));
  }

  void lm_head() {
    const Count inputs = Count(outputs_) * formats_.activation(s_.d_model, "output");
    add({.name = "lm_head",
         .count = 1,
         .weight_bytes =
             linear_bytes(formats_.linear("output"), padded("output", s_.vocab), s_.d_model)
                 .value(),
         .activation_bytes = (inputs + float_bytes(outputs_, s_.vocab)).value(),
         .operations = (Count(outputs_) * s_.vocab * s_.d_model * 2).value(),
         .arithmetic = formats_.arithmetic(),
         .tokens = outputs_,
         .weights = formats_.name("output")});
  }

  const Shape& s_;
  const Workload& w_;
  Formats formats_;
  int64_t q_width_;
  int64_t kv_width_;
  int64_t tokens_;   // of the step
  int64_t outputs_;  // whose logits are wanted
  std::vector<OpCost> ops_;
};

}  // namespace

std::vector<OpCost> count_ops(const Shape& shape, const Workload& workload) {
  validate(shape);
  check(workload);
  return Counter(shape, workload).ops();
}

int64_t weight_bytes(const Shape& shape, const std::string& scheme) {
  // A step of so many tokens that every expert is touched, to the last bit of a double.
  Workload all{.phase = Phase::decode, .batch = 1, .context = 1, .scheme = scheme};
  Shape dense = shape;
  dense.n_experts_used = shape.n_experts;
  Count sum = 0;
  for (const OpCost& op : count_ops(dense, all)) {
    if (op.name != "embedding") sum += op.weight_bytes;
  }
  return sum.value();
}

int64_t kv_bytes_per_token(const Shape& shape, const std::string& kv) {
  validate(shape);
  return (Count(2) * shape.n_layers * shape.n_kv_heads * kv_vector_bytes(kv, shape.head_dim))
      .value();
}

int64_t ffn_parameters(const Shape& shape) {
  validate(shape);
  const Count each = Count(3) * shape.d_model;
  const Count dense = each * (shape.n_layers - shape.n_moe_layers) * shape.d_ff;
  const Count moe = each * shape.n_moe_layers;
  return (dense + moe * shape.n_experts * shape.d_ff_expert + moe * shape.d_ff_shared).value();
}

std::string_view to_string(Phase phase) { return phase == Phase::prefill ? "prefill" : "decode"; }

}  // namespace qllm::roofline
