#include "options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include "interrupt.h"

namespace qllm::app {
namespace {

constexpr const char* kMachineGroup = "Machine and messages";
constexpr std::array<const char*, 4> kLogLevels = {"debug", "info", "warning", "error"};

int level_number(const std::string& name) {
  return static_cast<int>(std::find(kLogLevels.begin(), kLogLevels.end(), name) -
                          kLogLevels.begin());
}

std::string_view level_name(int level) {
  return kLogLevels.at(static_cast<size_t>(std::clamp(level, 0, 3)));
}

/// Empty, or what is wrong: CLI11's way.
std::string check_device(const std::string& name) {
  constexpr std::array<std::string_view, 3> kDevices = {"cpu", "cuda", "reference"};
  const auto known = [&](std::string_view one) {
    return std::find(kDevices.begin(), kDevices.end(), one) != kDevices.end();
  };
  const std::string_view all = name;
  const size_t plus = all.find('+');
  const bool two = plus != std::string_view::npos;
  const bool fits = two ? known(all.substr(0, plus)) && known(all.substr(plus + 1))
                        : name == "auto" || known(all);
  return fits ? ""
              : fmt::format("expected cpu, cuda, reference, auto or such as cpu+cuda, found '{}'",
                            name);
}

/// "auto", or a number from 0; nothing for anything else.
std::optional<int64_t> parse_layers(const std::string& text) {
  if (text == "auto") return OpenOptions().gpu_layers;
  int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// Opens by `open(OpenOptions)` under a progress bar and within reach of Ctrl-C.
template <typename Open>
Model with_progress(const CommonOptions& common, const Open& open) {
  const InterruptScope scope;
  const auto bar = std::make_shared<ProgressBar>(!common.quiet);
  Model model = open(common.open_options(bar));
  bar->clear();
  throw_if_interrupted();
  return model;
}

}  // namespace

void CommonOptions::add_to(CLI::App& command, bool with_threads) {
  const std::string group = kMachineGroup;
  if (with_threads) {
    command.add_option("--threads", threads, "workers; 0: one per physical core")
        ->check(CLI::Range(0, 65536))
        ->type_name("N")
        ->capture_default_str()
        ->group(group);
  }
  command.add_option("--cpus", cpus, "CPUs to run on, such as 0-3,8; default: all allowed")
      ->type_name("LIST")
      ->group(group);
  command
      .add_option("--numa", numa,
                  "on a machine of several memory nodes: split (each worker's weights on its own "
                  "node), interleave (pages over all nodes), local (workers and memory on one "
                  "node), replicate (a copy and a team per node, sessions shared out)")
      ->check(CLI::IsMember({"split", "interleave", "local", "replicate"}))
      ->type_name("POLICY")
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--device", device,
          "cpu, cuda (a GPU, by libqllm_cuda.so), reference (slow, exact), or auto: a GPU where "
          "one can be used, else the cpu; of two, such as cpu+cuda, the second takes --gpu-layers")
      ->check(check_device)
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--gpu-layers", gpu_layers,
                  "how many layers a GPU takes, the last ones, and the LM head with them; the cpu "
                  "takes the others; 0: none; auto: as many as fit into its free memory")
      ->check([](const std::string& text) {
        return parse_layers(text) ? "" : "expected a number from 0 or auto, found '" + text + "'";
      })
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--isa", isa, "force a kernel tier (see qllm info); default: the best")
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--scheme", scheme,
                  "weights: int8, int4-g32, int4-g64, int4-g128 (each also with -sym), keep (as "
                  "the file has them), or fp32 (reference only); default: int8 on the cpu, fp32 on "
                  "the reference")
      ->check(CLI::IsMember({"int8", "int4-g32", "int4-g64", "int4-g128", "int4-g32-sym",
                             "int4-g64-sym", "int4-g128-sym", "keep", "fp32"}))
      ->type_name("NAME")
      ->group(group);
  command
      .add_flag("--no-rotate", no_rotate,
                "int8: quantize the weights as they are, not rotated (less exact)")
      ->group(group);
  command
      .add_flag("--no-cache", no_cache,
                "neither read nor keep a packed copy of the model in $XDG_CACHE_HOME/qllm "
                "(~/.cache/qllm)")
      ->group(group);
  command
      .add_option("--cache-size", cache_size,
                  "the most that all packed copies may take, such as 20GB (1 GB = 2^30); those "
                  "used longest ago go first; default: 64GB")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber)
      ->type_name("BYTES")
      ->group(group);
  command
      .add_option("--memory", memory,
                  "where weights lie: map (a packed file in place), copy (own memory of each "
                  "worker), hugetlb (the same on explicit large pages), or auto: map on one memory "
                  "node, else copy")
      ->check(CLI::IsMember({"auto", "map", "copy", "hugetlb"}))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_flag("--mlock", mlock, "keep the weights from being swapped out, within ulimit -l")
      ->group(group);
  command.add_option("--log-level", log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_flag("--quiet", quiet, "no progress, no figures: errors only")->group(group);
}

void CommonOptions::add_kv_to(CLI::App& command) {
  command
      .add_option("--kv-format", kv_format,
                  "how keys and values are held: bf16, int8 with a scale per head, or f16 (GPU)")
      ->check(CLI::IsMember({"bf16", "int8", "f16"}))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(kMachineGroup);
  command
      .add_option("--kv-memory", kv_memory,
                  "memory for the keys and values of all sequences, such as 2GB (1 GB = 2^30); 0: "
                  "131,072 tokens or two full contexts, at most a quarter of the machine's memory")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::NonNegativeNumber)
      ->type_name("BYTES")
      ->group(kMachineGroup);
  command
      .add_option("--max-batch-tokens", max_batch_tokens,
                  "tokens of a prompt that are computed in one step; a GPU may want more")
      ->check(CLI::Range(1, 1 << 16))
      ->type_name("N")
      ->capture_default_str()
      ->group(kMachineGroup);
}

OpenOptions CommonOptions::open_options(const std::shared_ptr<ProgressBar>& bar) const {
  OpenOptions options;
  options.device = device;
  options.gpu_layers = parse_layers(gpu_layers).value_or(OpenOptions().gpu_layers);
  options.scheme = scheme;
  options.rotate = !no_rotate;
  options.isa = isa;
  options.numa = numa;
  options.threads = threads;
  options.cpus = cpus;
  options.memory = memory;
  options.lock_memory = mlock;
  if (!no_cache) options.cache_folder = default_cache_folder();
  options.cache_bytes = cache_size;
  options.kv_format = kv_format;
  options.kv_memory_bytes = kv_memory;
  options.max_batch_tokens = max_batch_tokens;
  const int least = quiet ? level_number("error") : level_number(log_level);
  options.log = [bar, least](int level, std::string_view line) {
    if (level < least) return;
    bar->clear();
    write_stderr(fmt::format("qllm: {}: {}\n", level_name(level), line));
  };
  options.progress = [bar](std::string_view stage, double fraction) {
    bar->update(stage, fraction);
    return !interrupt_requested();
  };
  return options;
}

void SamplingOptions::add_to(CLI::App& command) {
  const auto option = [&](const char* name, auto& value, const char* help, const char* type) {
    return command.add_option(name, value, help)->type_name(type)->capture_default_str();
  };
  const int64_t most = std::numeric_limits<int32_t>::max();
  option("-n,--max-tokens", generate.max_tokens,
         "most tokens to generate; -1: until the context is full", "N")
      ->check(CLI::Range(int64_t{-1}, most));
  option("-c,--context", context, "tokens of context; 0: the model's, at most 4096", "CTX")
      ->check(CLI::Range(int64_t{0}, most));
  command.add_flag("--greedy", greedy, "always the likeliest token (as --temp 0)");
  option("--temp", generate.temperature, "temperature; 0: greedy", "X")
      ->check(CLI::Range(0.0F, 1000.0F));
  option("--top-k", generate.top_k, "keep the K likeliest tokens; 0: all", "K")
      ->check(CLI::Range(0, std::numeric_limits<int32_t>::max()));
  option("--top-p", generate.top_p, "keep the least set of tokens of this probability; 1: all", "P")
      ->check(CLI::Range(0.0F, 1.0F));
  option("--min-p", generate.min_p, "drop tokens below this fraction of the likeliest; 0: none",
         "P")
      ->check(CLI::Range(0.0F, 1.0F));
  option("--repeat-penalty", generate.repeat_penalty,
         "makes the last 64 tokens less likely; 1: off", "X")
      ->check(CLI::Range(0.01F, 100.0F));
  option("--seed", generate.seed, "of the random choice; 0: a new one each time", "N")
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--ignore-eos", generate.ignore_end, "go on behind an end-of-text token");
}

GenerateOptions SamplingOptions::options() const {
  GenerateOptions result = generate;
  if (greedy) result.temperature = 0;
  return result;
}

CLI::Option* add_model(CLI::App& command, std::string& path) {
  return command.add_option("MODEL", path, "a .gguf or a .qllm file")->type_name("FILE");
}

Model open_model(const std::string& path, const CommonOptions& common) {
  return with_progress(common,
                       [&](const OpenOptions& options) { return Model::open(path, options); });
}

Model open_synthetic(const SyntheticShape& shape, const CommonOptions& common) {
  return with_progress(
      common, [&](const OpenOptions& options) { return Model::synthetic(shape, options); });
}

}  // namespace qllm::app
