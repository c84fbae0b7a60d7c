// qllm roofline: CPU or GPU, and why: what bounds each op of a model on each device.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>

#include "command.h"
#include "gnuplot.h"
#include "input.h"
#include "interrupt.h"
#include "options.h"
#include "roofline_local.h"
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
  bool json = false, csv = false, ops = false, list_devices = false;
  int threads = 0;
  std::string cpus, isa;
  bool quiet = false;

  void add_to(CLI::App& command);
  void add_model_to(CLI::App& command);
  void add_machine_to(CLI::App& command);
  OpenOptions open_options(const std::shared_ptr<ProgressBar>& bar) const;
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
  text("--device", devices, "cpu, cuda (of this machine, measured) and rows of --list-devices", "NAME,...")
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
  command.add_flag("--list-devices", list_devices, "the table of data sheets, and nothing else");
  add_machine_to(command);
}

OpenOptions RooflineOptions::open_options(const std::shared_ptr<ProgressBar>& bar) const {
  CommonOptions common;
  common.threads = threads;
  common.cpus = cpus;
  common.isa = isa;
  common.device = kThisCpu;
  common.quiet = quiet;
  return common.open_options(bar);
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
  const rl::Device device = measure_local(name, options.open_options(bar), kernel_question(cases));
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

RooflineRun prepare(const RooflineOptions& options) {
  // All that can be wrong before anything is measured.
  const std::vector<std::string> names = split(options.devices, "--device");
  RooflineRun run;
  run.cases = read_cases(options);
  const std::vector<double> power = per_device(options.power, "--power", names.size());
  const std::vector<double> hourly = per_device(options.hourly, "--hourly", names.size());
  if (names.size() * run.cases.size() > kMostCells) {
    throw UsageError{fmt::format("{} devices x {} cases: expected at most {} together",
                                 names.size(), run.cases.size(), kMostCells)};
  }
  run.shape = read_shape(options);
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
