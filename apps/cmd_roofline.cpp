// qllm roofline: CPU or GPU, and why: what bounds each op of a model on each device.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "command.h"
#include "gnuplot.h"
#include "input.h"
#include "interrupt.h"
#include "options.h"
#include "roofline_local.h"
#include "roofline_measure.h"
#include "roofline_run.h"
#include "terminal.h"
#include "whole_file.h"

namespace qllm::app {
namespace {

constexpr const char* kThisCpu = "cpu";
constexpr size_t kMostCells = 1000;  // devices x cases: a report, not a data base

struct RooflineOptions {
  std::string model, config, preset;
  std::string devices = kThisCpu;
  std::string batches = "1,4,16";
  std::string contexts = "2048";
  std::string schemes = "int8";
  std::string kv = "bf16";
  std::string power, hourly;
  double price = 0;
  std::string html;
  bool json = false, csv = false, ops = false, list_devices = false, measure = false;
  int repeat = 7;
  int threads = 0;
  std::string cpus, isa;
  bool quiet = false;

  void add_to(CLI::App& command);
  void add_model_to(CLI::App& command);
  void add_machine_to(CLI::App& command);
  CommonOptions common(const std::string& device) const;
};

void RooflineOptions::add_model_to(CLI::App& command) {
  auto* m = add_model(command, model);
  auto* c = command
                .add_option("--config", config,
                            "instead of a model: a Hugging Face config.json, or the folder of one")
                ->type_name("FILE")
                ->excludes(m);
  command
      .add_option("--preset", preset,
                  fmt::format("instead of a model: {}", fmt::join(rl::preset_names(), ", ")))
      ->type_name("NAME")
      ->excludes(m)
      ->excludes(c);
}

void RooflineOptions::add_machine_to(CLI::App& command) {
  const std::string group = "The measured CPU, and messages";
  command.add_option("--threads", threads, "workers; 0: one per physical core")
      ->check(CLI::Range(0, 65536))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--cpus", cpus, "CPUs to run on, such as 0-3,8; default: all allowed")
      ->type_name("LIST")
      ->group(group);
  command.add_option("--isa", isa, "force a kernel tier (see qllm info); default: the best")
      ->type_name("NAME")
      ->group(group);
  command.add_flag("--quiet", quiet, "no progress: errors only")->group(group);
}

void RooflineOptions::add_to(CLI::App& command) {
  add_model_to(command);
  const auto text = [&](const char* name, std::string& value, const char* help, const char* type) {
    return command.add_option(name, value, help)->type_name(type);
  };
  text("--device", devices, "cpu, cuda (of this machine, measured) and rows of --list-devices",
       "NAME,...")
      ->capture_default_str();
  text("--batch", batches, "sequences that decode together", "N,...")->capture_default_str();
  text("--context", contexts, "tokens: of the prompt, and behind which decode stands", "N,...")
      ->capture_default_str();
  text("--scheme", schemes,
       "weights: int8, int4-g32, int4-g64, int4-g128 (each also -sym), keep (of a model file), "
       "fp16, fp32",
       "NAME,...")
      ->capture_default_str();
  text("--kv", kv, "keys and values: bf16 or int8", "NAME")
      ->check(CLI::IsMember({"bf16", "int8"}))
      ->capture_default_str();
  text("--power", power, "watts, of each device or of all: energy per million tokens", "W,...");
  command.add_option("--price", price, "of a kWh, in your currency: cost per million tokens")
      ->check(CLI::Range(0.0, 1e6))
      ->type_name("X");
  text("--hourly", hourly, "price of an hour of each device or of all, power aside", "X,...");
  text("--html", html, "write a page with plots (needs gnuplot)", "FILE");
  auto* j = command.add_flag("--json", json, "one JSON document");
  command.add_flag("--csv", csv, "every op as comma-separated values")->excludes(j);
  command.add_flag("--ops", ops, "also a table of every op, for the first batch");
  command.add_flag("--measure", measure,
                   "also run the model on cpu or cuda (random weights of a --preset or --config), "
                   "and set what its ops took beside their bounds");
  command.add_option("--repeat", repeat, "of --measure: rounds of decode, some steps each")
      ->check(CLI::Range(1, 10000))
      ->type_name("N")
      ->capture_default_str();
  command.add_flag("--list-devices", list_devices, "the table of data sheets, and nothing else");
  add_machine_to(command);
}

CommonOptions RooflineOptions::common(const std::string& device) const {
  CommonOptions c;
  c.threads = threads;
  c.cpus = cpus;
  c.isa = isa;
  c.device = device;
  c.quiet = quiet;
  return c;
}

std::vector<std::string> split(const std::string& text, const char* option) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    if (words.back().empty())
      throw UsageError{fmt::format("{}: expected a list such as a,b", option)};
    begin = end + 1;
  }
  return words;
}

template <typename T>
std::vector<T> numbers(const std::string& text, const char* option, T least) {
  std::vector<T> values;
  for (const std::string& word : split(text, option)) {
    T value = 0;
    const auto [end, status] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool is_whole = status == std::errc{} && end == word.data() + word.size();
    if (!is_whole || !(value >= least) || !(value <= static_cast<T>(1e9))) {
      throw UsageError{
          fmt::format("{}: expected numbers from {}, found '{}'", option, least, word)};
    }
    values.push_back(value);
  }
  return values;
}

/// One value for each device, or the same for all.
std::vector<double> per_device(const std::string& text, const char* option, size_t devices) {
  if (text.empty()) return std::vector<double>(devices, 0.0);
  std::vector<double> values = numbers<double>(text, option, 0.0);
  if (values.size() == 1) values.resize(devices, values.front());
  if (values.size() != devices) {
    throw UsageError{fmt::format("{}: {} values for {} devices", option, values.size(), devices)};
  }
  return values;
}

rl::Shape read_shape(const RooflineOptions& options) {
  if (!options.preset.empty()) return rl::preset(options.preset);
  if (!options.config.empty()) return rl::shape_from_config_file(options.config);
  if (options.model.empty()) throw UsageError{"give a MODEL, --config FILE or --preset NAME"};
  return rl::shape_from_model(inspect_model(options.model), options.model);
}

rl::Device measure(const std::string& name, const RooflineOptions& options,
                   const std::vector<RooflineCase>& cases) {
  const InterruptScope scope;
  const auto bar = std::make_shared<ProgressBar>(!options.quiet);
  rl::Device device =
      measure_local(name, options.common(name).open_options(bar), kernel_question(cases));
  bar->clear();
  throw_if_interrupted();
  return device;
}

std::vector<RooflineCase> read_cases(const RooflineOptions& options) {
  std::vector<RooflineCase> cases;
  for (const std::string& scheme : split(options.schemes, "--scheme")) {
    for (const int64_t context : numbers<int64_t>(options.contexts, "--context", 1)) {
      for (const int64_t batch : numbers<int64_t>(options.batches, "--batch", 1)) {
        cases.push_back({batch, context, scheme, options.kv});
      }
    }
  }
  return cases;
}

/// A model of random weights of this shape. Throws Error (unsupported) for what the library does
/// not run.
SyntheticShape synthetic_shape(const rl::Shape& s) {
  if (s.n_moe_layers > 0 || s.qkv_bias || s.qk_norm || s.sliding_window > 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: --measure: expected a LLaMA without experts, biases, head norms "
                            "and sliding window",
                            short_name(s.name)));
  }
  SyntheticShape shape;
  shape.vocab = s.vocab;
  shape.d_model = s.d_model;
  shape.d_ff = s.d_ff;
  shape.n_layers = s.n_layers;
  shape.n_heads = s.n_heads;
  shape.n_kv_heads = s.n_kv_heads;
  shape.head_dim = s.head_dim;
  return shape;
}

void run_the_model(RooflineRun& run, const RooflineOptions& options) {
  const auto open = [&](const std::string& device, const RooflineCase& what) {
    CommonOptions common = options.common(device);
    common.scheme = what.scheme;
    common.kv_format = what.kv;
    return options.model.empty() ? open_synthetic(synthetic_shape(run.shape), common)
                                 : open_model(options.model, common);
  };
  measure_cells(run, open, options.repeat);
}

/// What --measure cannot do, before anything is measured.
void check_measure(const RooflineOptions& options, const std::vector<std::string>& devices,
                   const std::vector<RooflineCase>& cases) {
  constexpr int64_t kMostSessions = 64;
  if (!options.measure) return;
  if (std::none_of(devices.begin(), devices.end(), is_local)) {
    throw UsageError{"--measure: expected --device cpu or cuda among the devices"};
  }
  for (const RooflineCase& c : cases) {
    if (c.batch > kMostSessions) {
      throw UsageError{
          fmt::format("--measure: --batch: expected at most {}, found {}", kMostSessions, c.batch)};
    }
  }
}

RooflineRun prepare(const RooflineOptions& options) {
  // All that can be wrong before anything is measured.
  const std::vector<std::string> names = split(options.devices, "--device");
  RooflineRun run;
  run.cases = read_cases(options);
  check_measure(options, names, run.cases);
  const std::vector<double> power = per_device(options.power, "--power", names.size());
  const std::vector<double> hourly = per_device(options.hourly, "--hourly", names.size());
  if (names.size() * run.cases.size() > kMostCells) {
    throw UsageError{fmt::format("{} devices x {} cases: expected at most {} together",
                                 names.size(), run.cases.size(), kMostCells)};
  }
  run.shape = read_shape(options);
  if (options.measure && options.model.empty()) synthetic_shape(run.shape);
  for (const RooflineCase& c : run.cases) {
    rl::count_ops(run.shape, {rl::Phase::prefill, c.batch, c.context, c.scheme, c.kv, 0});
  }
  for (size_t i = 0; i < names.size(); ++i) {
    run.devices.push_back(is_local(names[i]) ? rl::Device{} : rl::device(names[i]));
    run.costs.push_back({power[i], options.price, hourly[i]});
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (is_local(names[i])) run.devices[i] = measure(names[i], options, run.cases);
  }
  return run;
}

std::string device_list(bool as_csv) {
  Table table;
  table.row({"name", "GB/s", "int8 TOPS", "fp16", "fp32 TFLOPS", "GB", "W", "source"});
  const auto cell = [](double v) { return v > 0 ? fmt::format("{:g}", v) : std::string("-"); };
  for (const rl::Device& d : rl::devices()) {
    table.row({d.id, cell(d.read_gbps), cell(d.int8_tops), cell(d.fp16_tflops), cell(d.fp32_tflops),
               cell(d.memory_gb), cell(d.tdp_w), d.source});
  }
  return as_csv ? table.csv() : table.text();
}

void write_page(const RooflineRun& run, const std::string& path) {
  const std::string page = roofline_html(run);
  WholeFile file(path);
  file.put(page.data(), page.size());
  file.finish();
}

int execute(const RooflineOptions& options) {
  if (options.list_devices) {
    write_stdout(device_list(options.csv));
    return 0;
  }
  if (!options.html.empty()) require_gnuplot();
  RooflineRun run = prepare(options);
  work_out(run);
  if (options.measure) run_the_model(run, options);
  if (!options.html.empty()) write_page(run, options.html);
  if (options.json) {
    print_json(roofline_json(run));
  } else {
    write_stdout(options.csv ? roofline_csv(run) : roofline_text(run, options.ops));
  }
  return 0;
}

}  // namespace

void add_roofline(CLI::App& app, Action& action) {
  add_command<RooflineOptions>(app, action, "roofline",
                               "Show what bounds a model on this CPU, other CPUs and GPUs",
                               execute);
}

}  // namespace qllm::app
