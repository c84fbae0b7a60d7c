// qllm perplexity: how well a model predicts a text; how near it stays to its exact reference.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>

#include "command.h"
#include "input.h"
#include "interrupt.h"
#include "options.h"
#include "report.h"
#include "scoring.h"

namespace qllm::app {
namespace {

struct PerplexityOptions {
  std::string model;
  std::string file;
  int64_t chunk = 512;
  int64_t chunks = 0;
  std::string against;
  bool json = false;
  CommonOptions common;

  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    command.add_option("-f,--file", file, "the text; - is standard input")
        ->type_name("TEXT")
        ->required();
    command.add_option("-c,--context", chunk, "tokens in a chunk; its second half is scored")
        ->check(CLI::Range(int64_t{4}, int64_t{1} << 30))
        ->type_name("N")
        ->capture_default_str();
    command.add_option("--chunks", chunks, "at most that many chunks; 0: all")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
        ->type_name("N")
        ->capture_default_str();
    command
        .add_option("--against", against,
                    "also compare with: reference (fp32, slow), or kv-bf16 (as it is opened here, "
                    "but keys and "
                    "values bf16)")
        ->check(CLI::IsMember({"reference", "kv-bf16"}))
        ->type_name("NAME");
    command.add_flag("--json", json, "one JSON document");
    common.add_to(command);
    common.add_kv_to(command);
  }
};

/// A model and the cache it is evaluated with.
struct Runner {
  Runner(Model opened, int64_t context) : model(std::move(opened)), session(model, context) {}
  Model model;
  Session session;
};

/// Called with the logits [vocab] of position `i` of a chunk.
using PositionFn = std::function<void(int64_t i, std::span<const float> logits)>;

// Evaluates a chunk and hands out the positions that predict its second half: i + 1 tokens stand
// before the prediction, and the last one predicts what is behind the chunk.
void for_scored(Runner& runner, std::span<const int32_t> chunk, const PositionFn& use) {
  const auto length = static_cast<int64_t>(chunk.size());
  const auto vocab = static_cast<size_t>(runner.model.info().vocab_size);
  std::exception_ptr failure;
  const auto receive = [&](int64_t first, int64_t count, std::span<const float> logits) {
    try {
      for (int64_t i = std::max(first, length / 2 - 1); i < std::min(first + count, length - 1);
           ++i) {
        use(i, logits.subspan(static_cast<size_t>(i - first) * vocab, vocab));
      }
    } catch (...) {
      failure = std::current_exception();
    }
    return !failure && !interrupt_requested();
  };
  const InterruptScope scope(&runner.session);
  runner.session.evaluate(chunk, receive);
  if (failure) std::rethrow_exception(failure);
  throw_if_interrupted();
}

struct Quality {
  Score model;
  Score reference;
  Agreement agreement;
};

// Logits of the reference's scored positions of one chunk wait here for the model's.
class ChunkScorer {
 public:
  ChunkScorer(Runner& model, Runner* reference) : model_(model), reference_(reference) {}

  void add(std::span<const int32_t> chunk, Quality& quality) {
    const auto half = static_cast<int64_t>(chunk.size()) / 2 - 1;
    const auto next = [&](int64_t i) { return chunk[static_cast<size_t>(i + 1)]; };
    kept_.clear();
    if (reference_ != nullptr) {
      for_scored(*reference_, chunk, [&](int64_t i, std::span<const float> logits) {
        log_softmax(logits, reference_log_probs_);
        quality.reference.add(reference_log_probs_, next(i));
        kept_.insert(kept_.end(), logits.begin(), logits.end());
      });
    }
    for_scored(model_, chunk, [&](int64_t i, std::span<const float> logits) {
      log_softmax(logits, log_probs_);
      quality.model.add(log_probs_, next(i));
      if (reference_ == nullptr) return;
      const size_t row = static_cast<size_t>(i - half) * logits.size();
      log_softmax(std::span(kept_).subspan(row, logits.size()), reference_log_probs_);
      quality.agreement.add(reference_log_probs_, log_probs_);
    });
  }

 private:
  Runner& model_;
  Runner* reference_;
  std::vector<float> kept_;  // [chunk/2, vocab]
  std::vector<double> log_probs_, reference_log_probs_;
};

int64_t chunk_count(const PerplexityOptions& options, size_t tokens) {
  const int64_t whole = static_cast<int64_t>(tokens) / options.chunk;
  if (whole == 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: expected at least one chunk of {} tokens, found {} tokens",
                            options.file, options.chunk, tokens));
  }
  return options.chunks == 0 ? whole : std::min(whole, options.chunks);
}

Json quality_json(const PerplexityOptions& options, const Quality& quality, int64_t chunks) {
  const bool compared = !options.against.empty();
  const auto where_compared = [&](double value) { return compared ? Json(value) : Json(nullptr); };
  Json json;
  json["perplexity"] = quality.model.perplexity();
  json["perplexity_stderr"] = quality.model.perplexity_stderr();
  json["kl_mean"] = where_compared(quality.agreement.kl().mean());
  json["kl_stderr"] = where_compared(quality.agreement.kl().stderror());
  json["top1_agreement"] = where_compared(quality.agreement.top1().mean());
  json["top1_stderr"] = where_compared(quality.agreement.top1().stderror());
  json["tokens"] = quality.model.count();
  json["kl_max"] = where_compared(quality.agreement.kl_max());
  json["reference_perplexity"] = where_compared(quality.reference.perplexity());
  json["chunks"] = chunks;
  json["chunk_tokens"] = options.chunk;
  return json;
}

std::string quality_text(const PerplexityOptions& options, const Quality& quality, int64_t chunks) {
  std::string out = fmt::format("perplexity {:.4f} +- {:.4f} over {} tokens ({} chunks of {})\n",
                                quality.model.perplexity(), quality.model.perplexity_stderr(),
                                quality.model.count(), chunks, options.chunk);
  if (options.against.empty()) return out;
  const Agreement& agreement = quality.agreement;
  const double ratio = quality.model.perplexity() / quality.reference.perplexity();
  out += fmt::format("reference  {:.4f} ({:+.2f} %)\n", quality.reference.perplexity(),
                     100 * (ratio - 1));
  out += fmt::format("KL to it   {:.5f} +- {:.5f} nats mean, {:.3f} most\n", agreement.kl().mean(),
                     agreement.kl().stderror(), agreement.kl_max());
  out += fmt::format("same likeliest token {:.1f} +- {:.1f} %\n", 100 * agreement.top1().mean(),
                     100 * agreement.top1().stderror());
  return out;
}

void print_quality(const PerplexityOptions& options, const Quality& quality, int64_t chunks) {
  if (options.json) {
    print_json(quality_json(options, quality, chunks));
  } else {
    write_stdout(quality_text(options, quality, chunks));
  }
}

std::unique_ptr<Runner> open_reference(const PerplexityOptions& options) {
  if (options.against.empty()) return nullptr;
  CommonOptions common = options.common;
  common.kv_format = "bf16";
  if (options.against == "reference") {
    common.device = "reference";
    common.gpu_layers = "auto";
    common.scheme = "fp32";
    common.isa.clear();
  }
  return std::make_unique<Runner>(open_model(options.model, common), options.chunk);
}

int execute(const PerplexityOptions& options) {
  const std::string text = read_text(options.file);
  Runner model(open_model(options.model, options.common), options.chunk);
  const std::vector<int32_t> ids = model.model.tokenize(text, false, false);
  const int64_t chunks = chunk_count(options, ids.size());
  const std::unique_ptr<Runner> reference = open_reference(options);
  ChunkScorer scorer(model, reference.get());
  Quality quality;
  ProgressBar bar(!options.common.quiet);
  for (int64_t i = 0; i < chunks; ++i) {
    bar.update("scoring", static_cast<double>(i) / static_cast<double>(chunks));
    const auto begin = static_cast<size_t>(i * options.chunk);
    scorer.add(std::span(ids).subspan(begin, static_cast<size_t>(options.chunk)), quality);
  }
  bar.clear();
  print_quality(options, quality, chunks);
  return 0;
}

}  // namespace

void add_perplexity(CLI::App& app, Action& action) {
  add_command<PerplexityOptions>(app, action, "perplexity", "Score a text, and the quantization",
                                 execute);
}

}  // namespace qllm::app
