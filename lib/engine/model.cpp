#include <algorithm>
#include <future>
#include <limits>
#include <utility>

#include "backend/profile.h"
#include "core/error.h"
#include "core/math.h"
#include "engine/loaded_model.h"
#include "engine/model_cache.h"
#include "engine/model_digest.h"
#include "engine/packed_verifier.h"
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

/// The grid of a scheme of 4 bits, so that random weights need not be quantized.
std::optional<GroupFormat> synthetic_grid(const Scheme& scheme) {
  if (scheme.kind != SchemeKind::int4) return std::nullopt;
  return GroupFormat{4, scheme.group, scheme.has_min ? GroupScales::f16_min : GroupScales::f16};
}

/// The metadata of a GGUF or a packed file.
std::shared_ptr<const GgufFile> open_metadata(const std::string& path) {
  if (!is_packed_file(path)) return GgufFile::open(path);
  auto packed = PackedFile::open(path);
  const GgufFile* gguf = &packed->gguf();
  return {std::move(packed), gguf};
}

/// The options with what the file has settled.
OpenOptions packed_options(const PackedFile& file, const OpenOptions& options) {
  const std::string scheme = to_string(file.form().scheme);
  require(options.scheme.empty() || options.scheme == scheme, ErrorCode::invalid_argument,
          "{}: packed as {}: it cannot be opened as {}", file.origin(), scheme, options.scheme);
  require(options.rotate || !file.form().rotations.any(), ErrorCode::invalid_argument,
          "{}: packed with rotated weights: it cannot be opened without", file.origin());
  require(options.device.find("reference") == std::string::npos, ErrorCode::unsupported,
          "{}: a packed file runs on the cpu; the reference reads the file that it was made of",
          file.origin());
  OpenOptions settled = options;
  settled.scheme = scheme;
  return settled;
}

void add_packed_tensors(const PackedFile& file, ModelInfo* info) {
  for (const auto& [name, entry] : file.linears()) {
    info->tensors.push_back(
        {name, to_string(file.form().scheme), {entry.n, entry.k}, entry.linear.layout.bytes()});
  }
}

ModelInfo inspect_packed(const std::string& path, const OpenOptions& options) {
  const auto file = PackedFile::open(path);
  packed_options(*file, options);
  const ModelConfig config = config_from_packed(*file);
  const Graph graph = build_llama(config, file->form().rotations);
  check_packed(*file, graph);
  ModelInfo info = describe(file->gguf(), config);
  add_packed_tensors(*file, &info);
  info.file_bytes = file->file_bytes();
  info.packed_file = path;
  info.rotated = file->form().rotations.any();
  packed_sizes(graph, *file, &info);
  const Vocab vocab = vocab_from_gguf(file->gguf());
  info.tokenizer = tokenizer_name(vocab);
  info.has_chat_template = !vocab.chat_template.empty();
  return info;
}

std::string render(const Vocab& vocab, std::span<const ChatMessage> messages, bool prompt) {
  const ChatFormat format = detect_chat_format(vocab.chat_template);
  return render_chat(format, vocab.chat_template, messages, prompt);
}

void say_warnings(const Backend& backend, const LogFn& log) {
  if (!log) return;
  for (const std::string& line : backend.info().warnings) log(LogLevel::warning, line);
}

}  // namespace

Scheme choose_scheme(const OpenOptions& options) {
  if (!options.scheme.empty()) return parse_scheme(options.scheme);
  return {options.device == "reference" ? SchemeKind::fp32 : SchemeKind::int8};
}

PlanLimits plan_limits(const OpenOptions& options) {
  require(options.max_batch_tokens >= 1 && options.max_batch_tokens <= kMaxBatchTokens,
          ErrorCode::invalid_argument, "max_batch_tokens: {} is not in [1, {}]",
          options.max_batch_tokens, kMaxBatchTokens);
  return {options.max_batch_tokens, std::min(kMaxOutputs, options.max_batch_tokens)};
}

BackendOptions backend_options(const OpenOptions& options) {
  require(options.gpu_layers >= kAutomaticLayers, ErrorCode::invalid_argument,
          "gpu_layers: {}, expected 0 or more, or -1 for as many as fit", options.gpu_layers);
  require(options.threads >= 0, ErrorCode::invalid_argument, "threads: {} is negative",
          options.threads);
  BackendOptions b;
  b.threads = options.threads;
  b.cpus = options.cpus;
  b.isa = options.isa;
  b.scheme = choose_scheme(options);
  b.kv_format = parse_kv_format(options.kv_format);
  b.large_pages = options.large_pages;
  b.memory = parse_memory_mode(options.memory);
  b.lock_memory = options.lock_memory;
  b.numa = parse_numa_policy(options.numa);
  b.gpu_layers = options.gpu_layers;
  b.kv_memory_bytes = options.kv_memory_bytes;
  b.limits = plan_limits(options);
  if (options.log) {
    b.log = [log = options.log](LogLevel level, std::string_view line) {
      log(static_cast<int>(level), line);
    };
  }
  return b;
}

std::vector<BackendOptions> team_options(const std::string& device, const BackendOptions& options) {
  if (options.numa != NumaPolicy::replicate) return {options};
  std::vector<int> nodes = make_backend(device, options)->info().worker_nodes;
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  if (nodes.size() < 2) return {options};
  std::vector<BackendOptions> teams;
  const auto count = static_cast<int>(nodes.size());
  for (int i = 0; i < count; ++i) {
    BackendOptions& team = teams.emplace_back(options);
    team.numa_node = nodes[static_cast<size_t>(i)];
    if (options.threads > 0) {
      team.threads = std::max(1, options.threads / count + (i < options.threads % count ? 1 : 0));
    }
  }
  return teams;
}

Rotations choose_rotations(const ModelConfig& config, const OpenOptions& options) {
  const bool rotates = options.rotate && choose_scheme(options).kind == SchemeKind::int8;
  return rotates ? llama_rotations(config) : Rotations{};
}

ModelImpl::ModelImpl(std::shared_ptr<const GgufFile> gguf, const OpenOptions& options)
    : file(std::move(gguf)) {
  config = config_from_gguf(*file);
  check_tensors(*file, config);
  const Rotations rotations = choose_rotations(config, options);
  make_own_tokenizer();
  info = describe(*file, config);
  describe_tokenizer();
  load(build_llama(config, rotations), rotations, std::make_shared<GgufTensorSource>(file),
       options);
}

/// The file is compared with its checksums, and the tokenizer made, while the backend comes up:
/// all three are done when the first token is wanted.
ModelImpl::ModelImpl(std::shared_ptr<const PackedFile> packed, const OpenOptions& given,
                     bool known_good)
    : file(packed, &packed->gguf()), packed_(std::move(packed)) {
  const OpenOptions options = packed_options(*packed_, given);
  if (options.large_pages) packed_->use_large_pages();
  PackedVerifier verifier(*packed_, options, known_good);
  config = config_from_packed(*packed_);
  const Rotations rotations = packed_->form().rotations;
  const Graph graph = build_llama(config, rotations);
  check_packed(*packed_, graph);
  std::future<void> tokenizer_made = in_background([this] { make_own_tokenizer(); });
  info = describe(*file, config);
  info.file_bytes = packed_->file_bytes();
  info.packed_file = packed_->origin();
  add_packed_tensors(*packed_, &info);
  verifier_ = &verifier;
  load(graph, rotations, std::make_shared<GgufTensorSource>(file), options);
  verifier_ = nullptr;
  tokenizer_made.get();
  describe_tokenizer();
}

void ModelImpl::make_own_tokenizer() {
  own_tokenizer = open_tokenizer(*file);
  const auto n_tokens = static_cast<int64_t>(own_tokenizer->vocab().tokens.size());
  require(n_tokens <= config.vocab_size, ErrorCode::bad_format,
          "{}: tokenizer of {} tokens, embedding of {}", file->origin(), n_tokens,
          config.vocab_size);
}

void ModelImpl::describe_tokenizer() {
  info.tokenizer = tokenizer_name(own_tokenizer->vocab());
  info.has_chat_template = !own_tokenizer->vocab().chat_template.empty();
}

ModelImpl::ModelImpl(const SyntheticShape& shape, const OpenOptions& options)
    : config(synthetic_config(shape)) {
  const Rotations rotations = choose_rotations(config, options);
  info = describe(config);
  load(build_llama(config, rotations), rotations,
       std::make_shared<SyntheticSource>(build_llama(config), shape.seed,
                                         synthetic_grid(choose_scheme(options))),
       options);
}

void ModelImpl::load(const Graph& graph, const Rotations& rotations,
                     std::shared_ptr<const TensorSource> source, const OpenOptions& options) {
  limits = plan_limits(options);
  if (!packed_) predict_sizes(graph, choose_scheme(options), *source, &info);
  if (packed_) packed_sizes(graph, *packed_, &info);
  try {
    const BackendOptions chosen = backend_options(options);
    source_ = source;
    form_ = digest_form(chosen.scheme, rotations);
    const std::vector<BackendOptions> teams = team_options(options.device, chosen);
    for (const BackendOptions& team : teams) {
      Replica& replica = replicas.emplace_back();
      replica.backend = make_backend(options.device, team);
      if (replicas.size() == 1) {
        say_warnings(*replica.backend, chosen.log);
        if (verifier_ != nullptr && !replica.backend->maps_packed()) verifier_->leave_linears();
      }
      auto rows = rotate_llama(config, rotations, source);
      if (packed_) rows = std::make_shared<PackedSource>(packed_, std::move(rows));
      replica.weights = replica.backend->load(graph, std::move(rows), options.progress);
      replica.plan = replica.backend->compile(graph, replica.weights, limits);
      const auto count = static_cast<int64_t>(teams.size());
      make_kv_pool(&replica, ceil_div(options.kv_memory_bytes, count));
    }
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, "{}: no memory for {} MiB of weights and their buffers",
         file ? file->origin() : config.name, info.weight_bytes >> 20);
  }
  if (verifier_ != nullptr) verifier_->finish();
  require(!options.progress || options.progress("loading", 1.0), ErrorCode::cancelled,
          "loading: cancelled");
  info.rotated = rotations.any();
  const auto count = static_cast<int64_t>(replicas.size());
  info.weight_bytes = count * replicas.front().weights->bytes();
  info.bytes_per_token = replicas.front().weights->bytes_per_step();
  info.memory = replicas.front().weights->memory();
}

void Replica::execute(const Batch& batch, std::span<float> logits) {
  const std::lock_guard lock(plan_mutex);
  plan->execute(batch, logits);
}

void Replica::set_recorder(StepRecorder* recorder) {
  const std::lock_guard lock(plan_mutex);
  require(recorder == nullptr || !recorded_, ErrorCode::invalid_argument,
          "the steps of this model are being recorded already");
  plan->set_recorder(recorder);
  recorded_ = false;
  if (recorder == nullptr) return;
  try {
    recorder->prepare();
    recorded_ = true;
  } catch (...) {
    plan->set_recorder(nullptr);
    throw;
  }
}

Replica& ModelImpl::freest_replica() {
  const auto fewer = [](const Replica& a, const Replica& b) { return a.sessions < b.sessions; };
  return *std::min_element(replicas.begin(), replicas.end(), fewer);
}

void ModelImpl::make_kv_pool(Replica* replica, int64_t budget) {
  require(budget >= 0, ErrorCode::invalid_argument, "kv_memory_bytes: {} is negative", budget);
  const KvShape shape{config.n_layers, config.n_kv_heads, config.head_dim};
  const int64_t block_bytes = replica->backend->kv_block_bytes(shape);
  KvPoolOptions pool;
  if (budget > 0) {
    pool.blocks = budget / block_bytes;
    require(pool.blocks >= 1, ErrorCode::invalid_argument,
            "kv_memory_bytes: {} bytes do not hold one block of {} tokens, {} bytes", budget,
            kKvBlockTokens, block_bytes);
    pool.kept_blocks = pool.blocks;
  } else {
    const int64_t wanted = std::max(kDefaultKvTokens, 2 * config.context_length);
    int64_t most = memory_bytes() / 4 / block_bytes;
    const int64_t on_device = replica->backend->kv_blocks_that_fit(shape);
    if (on_device > 0) most = std::min(most, on_device);
    pool.blocks = std::max<int64_t>(std::min(ceil_div(wanted, kKvBlockTokens), most), 1);
    pool.kept_blocks = kDefaultKeptTokens / kKvBlockTokens;
  }
  pool.blocks = std::min<int64_t>(pool.blocks, std::numeric_limits<int32_t>::max());
  replica->kv_pool = replica->backend->make_kv_pool(shape, pool);
  info.kv_bytes_per_token = block_bytes / kKvBlockTokens;
  describe_parts(*replica, &info);
}

SequenceOwner ModelImpl::owner() const {
  std::call_once(digest_once_, [&] {
    digest_ = packed_ ? packed_->form().digest : model_digest(build_llama(config), form_, *source_);
  });
  return {digest_, config.vocab_size};
}

const Tokenizer& ModelImpl::tokenizer() const {
  require(own_tokenizer != nullptr, ErrorCode::unsupported, "a synthetic model has no tokenizer");
  return *own_tokenizer;
}

Model::Model(std::shared_ptr<ModelImpl> impl) : impl_(std::move(impl)) {}

Model Model::open(const std::string& path, const OpenOptions& options) {
  if (is_packed_file(path)) {
    return Model(std::make_shared<ModelImpl>(PackedFile::open(path), options));
  }
  if (auto cached = open_cached(path, options)) return Model(std::move(cached));
  return Model(std::make_shared<ModelImpl>(GgufFile::open(path), options));
}

Model Model::synthetic(const SyntheticShape& shape, const OpenOptions& options) {
  return Model(std::make_shared<ModelImpl>(shape, options));
}

ModelInfo Model::info() const { return impl_->info; }
MachineInfo Model::machine() const {
  MachineInfo info = machine_info(*impl_->replicas.front().backend);
  for (size_t i = 1; i < impl_->replicas.size(); ++i) {
    const BackendInfo other = impl_->replicas[i].backend->info();
    info.workers += other.workers;
    info.cpus.insert(info.cpus.end(), other.cpus.begin(), other.cpus.end());
  }
  return info;
}

PlacementInfo Model::placement() const {
  PlacementInfo all;
  for (const Replica& replica : impl_->replicas) {
    const PlacementInfo one = replica.backend->placement(*replica.weights);
    const bool first = &replica == &impl_->replicas.front();
    all.policy = one.policy;
    all.known = one.known && (first || all.known);
    all.bound = one.bound && (first || all.bound);
    all.nodes.insert(all.nodes.end(), one.nodes.begin(), one.nodes.end());
    all.local_bytes += one.local_bytes;
    all.remote_bytes += one.remote_bytes;
    all.nowhere_bytes += one.nowhere_bytes;
    all.remote_bytes_per_step = std::max(all.remote_bytes_per_step, one.remote_bytes_per_step);
  }
  return all;
}

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

std::vector<double> Model::part_seconds() const {
  Replica& replica = impl_->replicas.front();
  const std::lock_guard lock(replica.plan_mutex);
  return replica.plan->part_seconds();
}

void verify_packed(const std::string& path) {
  const auto file = PackedFile::open(path);
  PackedVerifier(*file, {}, false).finish();
}

struct Vocabulary::Impl {
  std::unique_ptr<const Tokenizer> tokenizer;
};

Vocabulary Vocabulary::open(const std::string& path) {
  auto impl = std::make_shared<Impl>();
  impl->tokenizer = open_tokenizer(*open_metadata(path));
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
  if (is_packed_file(path)) return inspect_packed(path, options);
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
