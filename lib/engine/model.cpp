#include <algorithm>
#include <utility>

#include "core/error.h"
#include "engine/loaded_model.h"
#include "model/gguf_config.h"
#include "model/gguf_source.h"
#include "model/gguf_vocab.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "qllm/qllm.hpp"
#include "text/chat_template.h"

namespace qllm {
namespace {

constexpr int64_t kMaxBatchTokens = 1 << 16;

std::string tokenizer_name(const Vocab& vocab) {
  return vocab.kind == TokenizerKind::bpe ? "bpe (" + vocab.pre + ")" : "spm (llama)";
}

std::unique_ptr<const Tokenizer> open_tokenizer(const GgufFile& file) {
  try {
    return make_tokenizer(vocab_from_gguf(file));
  } catch (const Error& e) {
    throw Error(e.code(), file.origin() + ": " + e.what());
  }
}

ModelConfig synthetic_config(const SyntheticShape& s) {
  ModelConfig c;
  c.architecture = "llama";
  c.name = "synthetic";
  c.vocab_size = s.vocab;
  c.d_model = s.d_model;
  c.d_ff = s.d_ff;
  c.n_layers = s.n_layers;
  c.n_heads = s.n_heads;
  c.n_kv_heads = s.n_kv_heads;
  c.head_dim = s.head_dim;
  c.rotary_dim = s.head_dim;
  c.context_length = 131072;
  c.tied_lm_head = true;
  validate(c, "synthetic model");
  return c;
}

std::string render(const Vocab& vocab, std::span<const ChatMessage> messages, bool prompt) {
  const ChatFormat format = detect_chat_format(vocab.chat_template);
  return render_chat(format, vocab.chat_template, messages, prompt);
}

}  // namespace

Scheme choose_scheme(const OpenOptions& options) {
  if (!options.scheme.empty()) return parse_scheme(options.scheme);
  return {options.device == "reference" ? SchemeKind::fp32 : SchemeKind::int8};
}

BackendOptions backend_options(const OpenOptions& options) {
  require(options.threads >= 0, ErrorCode::invalid_argument, "threads: {} is negative",
          options.threads);
  BackendOptions b;
  b.threads = options.threads;
  b.cpus = options.cpus;
  b.isa = options.isa;
  b.scheme = choose_scheme(options);
  b.large_pages = options.large_pages;
  if (options.log) {
    b.log = [log = options.log](LogLevel level, std::string_view line) {
      log(static_cast<int>(level), line);
    };
  }
  return b;
}

Rotations choose_rotations(const ModelConfig& config, const OpenOptions& options) {
  const bool rotates = options.rotate && choose_scheme(options).kind == SchemeKind::int8;
  return rotates ? llama_rotations(config) : Rotations{};
}

ModelImpl::ModelImpl(const std::string& path, const OpenOptions& options)
    : file(GgufFile::open(path)) {
  config = config_from_gguf(*file);
  check_tensors(*file, config);
  own_tokenizer = open_tokenizer(*file);
  const auto n_tokens = static_cast<int64_t>(own_tokenizer->vocab().tokens.size());
  require(n_tokens <= config.vocab_size, ErrorCode::bad_format,
          "{}: tokenizer of {} tokens, embedding of {}", path, n_tokens, config.vocab_size);
  const Rotations rotations = choose_rotations(config, options);
  const Graph graph = build_llama(config, rotations);
  info = describe(*file, config);
  info.tokenizer = tokenizer_name(own_tokenizer->vocab());
  info.has_chat_template = !own_tokenizer->vocab().chat_template.empty();
  load(graph, rotations, std::make_shared<GgufTensorSource>(file), options);
}

ModelImpl::ModelImpl(const SyntheticShape& shape, const OpenOptions& options)
    : config(synthetic_config(shape)) {
  const Rotations rotations = choose_rotations(config, options);
  const Graph graph = build_llama(config, rotations);
  info = describe(config);
  load(graph, rotations, std::make_shared<SyntheticSource>(build_llama(config), shape.seed),
       options);
}

void ModelImpl::load(const Graph& graph, const Rotations& rotations,
                     std::shared_ptr<const TensorSource> source, const OpenOptions& options) {
  require(options.max_batch_tokens >= 1 && options.max_batch_tokens <= kMaxBatchTokens,
          ErrorCode::invalid_argument, "max_batch_tokens: {} is not in [1, {}]",
          options.max_batch_tokens, kMaxBatchTokens);
  limits.max_tokens = options.max_batch_tokens;
  limits.max_outputs = std::min(kMaxOutputs, limits.max_tokens);
  predict_sizes(graph, choose_scheme(options), *source, &info);
  try {
    backend = make_backend(options.device, backend_options(options));
    source = rotate_llama(config, rotations, std::move(source));
    weights_ = backend->load(graph, std::move(source), options.progress);
    plan_ = backend->compile(graph, weights_, limits);
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, "{}: no memory for {} MiB of weights and their buffers",
         file ? file->origin() : config.name, info.weight_bytes >> 20);
  }
  require(!options.progress || options.progress("loading", 1.0), ErrorCode::cancelled,
          "loading: cancelled");
  info.rotated = rotations.any();
  info.weight_bytes = weights_->bytes();
  info.bytes_per_token = weights_->bytes_per_step();
}

void ModelImpl::execute(const Batch& batch, std::span<float> logits) {
  const std::lock_guard lock(plan_mutex_);
  plan_->execute(batch, logits);
}

std::unique_ptr<KvCache> ModelImpl::make_kv_cache(int64_t capacity) {
  try {
    return backend->make_kv_cache({config.n_layers, config.n_kv_heads, config.head_dim, capacity});
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, "no memory for the KV cache of {} tokens", capacity);
  }
}

const Tokenizer& ModelImpl::tokenizer() const {
  require(own_tokenizer != nullptr, ErrorCode::unsupported, "a synthetic model has no tokenizer");
  return *own_tokenizer;
}

Model::Model(std::shared_ptr<ModelImpl> impl) : impl_(std::move(impl)) {}

Model Model::open(const std::string& path, const OpenOptions& options) {
  return Model(std::make_shared<ModelImpl>(path, options));
}

Model Model::synthetic(const SyntheticShape& shape, const OpenOptions& options) {
  return Model(std::make_shared<ModelImpl>(shape, options));
}

ModelInfo Model::info() const { return impl_->info; }
MachineInfo Model::machine() const { return machine_info(*impl_->backend); }
bool Model::has_tokenizer() const { return impl_->own_tokenizer != nullptr; }

std::vector<int32_t> Model::tokenize(std::string_view text, bool add_special,
                                     bool parse_special) const {
  return impl_->tokenizer().encode(text, {add_special, parse_special});
}

std::string Model::detokenize(std::span<const int32_t> ids, bool special) const {
  return impl_->tokenizer().decode(ids, special);
}

std::string Model::render_chat(std::span<const ChatMessage> messages,
                               bool add_generation_prompt) const {
  return render(impl_->tokenizer().vocab(), messages, add_generation_prompt);
}

double Model::measure_read_gbps(int64_t bytes) const {
  return impl_->backend->measure_read_gbps(bytes);
}

double Model::measure_peak_tops() const { return impl_->backend->measure_peak_tops(); }

struct Vocabulary::Impl {
  std::unique_ptr<const Tokenizer> tokenizer;
};

Vocabulary Vocabulary::open(const std::string& path) {
  auto impl = std::make_shared<Impl>();
  impl->tokenizer = open_tokenizer(*GgufFile::open(path));
  Vocabulary vocabulary;
  vocabulary.impl_ = std::move(impl);
  return vocabulary;
}

std::vector<int32_t> Vocabulary::tokenize(std::string_view text, bool add_special,
                                          bool parse_special) const {
  return impl_->tokenizer->encode(text, {add_special, parse_special});
}

std::string Vocabulary::detokenize(std::span<const int32_t> ids, bool special) const {
  return impl_->tokenizer->decode(ids, special);
}

std::string Vocabulary::render_chat(std::span<const ChatMessage> messages,
                                    bool add_generation_prompt) const {
  return render(impl_->tokenizer->vocab(), messages, add_generation_prompt);
}

ModelInfo inspect_model(const std::string& path, const OpenOptions& options) {
  const auto file = GgufFile::open(path);
  const ModelConfig config = config_from_gguf(*file);
  check_tensors(*file, config);
  const Rotations rotations = choose_rotations(config, options);
  ModelInfo info = describe(*file, config);
  predict_sizes(build_llama(config, rotations), choose_scheme(options), GgufTensorSource(file),
                &info);
  info.rotated = rotations.any();
  const Vocab vocab = vocab_from_gguf(*file);
  info.tokenizer = tokenizer_name(vocab);
  info.has_chat_template = !vocab.chat_template.empty();
  return info;
}

MachineInfo inspect_machine(const OpenOptions& options) {
  return machine_info(*make_backend(options.device, backend_options(options)));
}

}  // namespace qllm
