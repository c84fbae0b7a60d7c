// Shapes from a Hugging Face config.json. The file is hostile input: every number is checked.
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "qllm/roofline.hpp"

namespace qllm::roofline {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;
constexpr int64_t kMaxNumber = int64_t{1} << 31;

/// What a model_type has beyond its numbers.
struct Family {
  std::string_view model_type;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool has_experts = false;
};

constexpr Family kFamilies[] = {
    {"llama"},
    {"mistral"},
    {"qwen2", true},
    {"qwen3", false, true},
    {"mixtral", false, false, true},
    {"qwen2_moe", true, false, true},
    {"qwen3_moe", false, true, true},
};

class Reader {
 public:
  Reader(const Json& object, const std::string& origin) : object_(object), origin_(origin) {}

  /// The value of a key, or null where it is absent or null.
  const Json* find(const char* key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  int64_t number(const char* key) const {
    const Json* value = find(key);
    require(value != nullptr, ErrorCode::bad_format, "{}: key {}: is missing", origin_, key);
    return checked(key, *value);
  }

  int64_t number_or(const char* key, int64_t otherwise) const {
    const Json* value = find(key);
    return value == nullptr ? otherwise : checked(key, *value);
  }

  bool flag_or(const char* key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    require(value->is_boolean(), ErrorCode::bad_format, "{}: key {}: expected true or false",
            origin_, key);
    return value->get<bool>();
  }

  std::string text(const char* key) const {
    const Json* value = find(key);
    require(value != nullptr && value->is_string(), ErrorCode::bad_format,
            "{}: key {}: expected a string", origin_, key);
    return value->get<std::string>();
  }

  const std::string& origin() const { return origin_; }

 private:
  int64_t checked(const char* key, const Json& value) const {
    const bool is_whole = value.is_number_unsigned();
    require(is_whole && value.get<uint64_t>() <= static_cast<uint64_t>(kMaxNumber),
            ErrorCode::bad_format, "{}: key {}: expected a whole number up to {}, found {}",
            origin_, key, kMaxNumber,
            value.is_number() ? value.dump() : std::string(value.type_name()));
    return static_cast<int64_t>(value.get<uint64_t>());
  }

  const Json& object_;
  const std::string& origin_;
};

const Family& family_of(const Reader& reader) {
  const std::string type = reader.text("model_type");
  const auto* found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                   [&](const Family& f) { return f.model_type == type; });
  std::string known;
  for (const Family& f : kFamilies)
    known += fmt::format("{}{}", known.empty() ? "" : ", ", f.model_type);
  // Shown as JSON, so that control characters of a hostile file do not reach a terminal.
  require(found != std::end(kFamilies), ErrorCode::unsupported,
          "{}: key model_type: expected one of {}, found {}", reader.origin(), known,
          Json(type.substr(0, 64)).dump(-1, ' ', true, Json::error_handler_t::replace));
  return *found;
}

/// Layers with experts: every decoder_sparse_step-th, but not those of mlp_only_layers.
int64_t count_moe_layers(const Reader& reader, int64_t n_layers) {
  const int64_t step = reader.number_or("decoder_sparse_step", 1);
  require(step >= 1, ErrorCode::bad_format, "{}: key decoder_sparse_step: expected at least 1",
          reader.origin());
  std::vector<bool> is_dense(static_cast<size_t>(n_layers), false);
  if (const Json* dense = reader.find("mlp_only_layers")) {
    require(dense->is_array(), ErrorCode::bad_format, "{}: key mlp_only_layers: expected a list",
            reader.origin());
    for (const Json& layer : *dense) {
      require(layer.is_number_unsigned() && layer.get<uint64_t>() < is_dense.size(),
              ErrorCode::bad_format, "{}: key mlp_only_layers: expected layers below {}",
              reader.origin(), n_layers);
      is_dense[layer.get<size_t>()] = true;
    }
  }
  int64_t count = 0;
  for (int64_t i = 0; i < n_layers; ++i) {
    if (!is_dense[static_cast<size_t>(i)] && (i + 1) % step == 0) ++count;
  }
  return count;
}

void read_experts(const Reader& reader, Shape* s) {
  // Mixtral calls them local experts and gives their width as intermediate_size.
  const bool is_mixtral = reader.find("num_local_experts") != nullptr;
  s->n_experts = reader.number(is_mixtral ? "num_local_experts" : "num_experts");
  s->n_experts_used = reader.number("num_experts_per_tok");
  s->d_ff_expert = is_mixtral ? s->d_ff : reader.number("moe_intermediate_size");
  s->d_ff_shared = reader.number_or("shared_expert_intermediate_size", 0);
  s->n_moe_layers = count_moe_layers(reader, s->n_layers);
}

int64_t sliding_window(const Reader& reader, const Family& family) {
  const bool is_qwen = family.model_type.substr(0, 4) == "qwen";
  if (!is_qwen) return reader.number_or("sliding_window", 0);
  require(!reader.flag_or("use_sliding_window", false), ErrorCode::unsupported,
          "{}: key use_sliding_window: windows in some layers only are not counted",
          reader.origin());
  return 0;
}

void validate_sizes(Shape s) {
  s.d_ff = 1;  // not known yet where there are experts
  validate(s);
}

Json parse(std::string_view text, const std::string& origin) {
  Json json = Json::parse(text, nullptr, false);
  require(json.is_object(), ErrorCode::bad_format, "{}: expected a JSON object", origin);
  return json;
}

}  // namespace

Shape shape_from_config(std::string_view text, const std::string& origin) {
  const Json json = parse(text, origin);
  const Reader reader(json, origin);
  const Family& family = family_of(reader);
  Shape s;
  s.name = s.source = origin;
  s.vocab = reader.number("vocab_size");
  s.d_model = reader.number("hidden_size");
  s.d_ff = reader.number_or("intermediate_size", 0);
  s.n_layers = reader.number("num_hidden_layers");
  s.n_heads = reader.number("num_attention_heads");
  s.n_kv_heads = reader.number_or("num_key_value_heads", s.n_heads);
  const int64_t even_share = s.n_heads > 0 ? s.d_model / s.n_heads : 0;
  s.head_dim = reader.number_or("head_dim", even_share);
  s.qkv_bias = reader.flag_or("attention_bias", family.qkv_bias);
  s.qk_norm = family.qk_norm;
  s.sliding_window = sliding_window(reader, family);
  validate_sizes(s);  // before anything is sized by the number of layers
  if (family.has_experts) read_experts(reader, &s);
  validate(s);
  return s;
}

Shape shape_from_config_file(const std::string& given) {
  struct stat status = {};
  std::string path = given;
  require(::stat(path.c_str(), &status) == 0, ErrorCode::not_found, "{}: no such file", path);
  if (S_ISDIR(status.st_mode)) {
    path += "/config.json";
    require(::stat(path.c_str(), &status) == 0, ErrorCode::not_found, "{}: no such file", path);
  }
  require(S_ISREG(status.st_mode), ErrorCode::io, "{}: not a file", path);
  require(status.st_size <= kMaxFileBytes, ErrorCode::bad_format,
          "{}: expected at most {} bytes, found {}", path, kMaxFileBytes, status.st_size);
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  require(file.good() || (file.eof() && status.st_size == 0), ErrorCode::io, "{}: cannot be read",
          path);
  return shape_from_config(text.str(), path);
}

}  // namespace qllm::roofline
