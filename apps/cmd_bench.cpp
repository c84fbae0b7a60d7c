// qllm bench: speed of prefill and decode, beside what the memory allows.
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "bench_plan.h"
#include "bench_prefix.h"
#include "command.h"
#include "input.h"
#include "options.h"
#include "report.h"
#include "trace_file.h"

namespace qllm::app {
namespace {

struct BenchOptions {
  std::string model;
  std::string synthetic;
  BenchLengths lengths;
  int64_t shared_prefix = 0;
  std::string threads = "0";
  bool json = false;
  bool csv = false;
  TraceFlags trace;
  CommonOptions common;

  void add_to(CLI::App& command);
};

void BenchOptions::add_to(CLI::App& command) {
  const auto count = [&](const char* name, auto& value, const char* help, int64_t least) {
    command.add_option(name, value, help)
        ->check(CLI::Range(least, int64_t{1} << 30))
        ->type_name("N")
        ->capture_default_str();
  };
  auto* m = add_model(command, model);
  command
      .add_option("--synthetic", synthetic,
                  "a model of random weights instead: d_model, d_ff, n_layers, n_heads, "
                  "n_kv_heads, head_dim, vocab; the default is a 1.0 B shape")
      ->type_name("KEY=N,...")
      ->excludes(m);
  count("--prompt", lengths.prompt, "tokens of prefill", 1);
  count("--gen", lengths.gen, "steps of decode", 1);
  count("--depth", lengths.depth, "tokens in the cache before either", 0);
  command.add_option("--batch", lengths.batch, "sequences that decode together")
      ->check(CLI::Range(int64_t{1}, int64_t{64}))
      ->type_name("N")
      ->capture_default_str();
  count("--repeat", lengths.repeat, "measurements; medians are shown", 1);
  command.add_option("--threads", threads, "workers, one row each; 0: one per physical core")
      ->type_name("N,...")
      ->capture_default_str();
  count("--shared-prefix", shared_prefix,
        "measure instead how soon a second request of the same N tokens and 16 more has its first "
        "token",
        0);
  auto* j = command.add_flag("--json", json, "one JSON document");
  command.add_flag("--csv", csv, "comma-separated values")->excludes(j);
  trace.add_to(command);
  common.add_to(command, false);
  common.add_kv_to(command);
}

Model open(const BenchOptions& options, int threads) {
  CommonOptions common = options.common;
  common.threads = threads;
  return options.model.empty() ? open_synthetic(parse_shape(options.synthetic), common)
                               : open_model(options.model, common);
}

BenchRow measure_with(const BenchOptions& options, int threads, TraceFile& trace) {
  reset_peak_rss();
  const auto start = std::chrono::steady_clock::now();
  const Model model = open(options, threads);
  const std::chrono::duration<double> load = std::chrono::steady_clock::now() - start;
  ProgressBar bar(!options.common.quiet);
  trace.start(model);
  BenchRow row = measure(model, options.lengths, bar);
  trace.finish();
  row.load_s = load.count();
  row.memory = model.info().memory;
  return row;
}

/// Each half at its own ceiling.
Json parts_json(const BenchRow& row) {
  Json list = Json::array();
  for (size_t i = 0; i < row.parts.size(); ++i) {
    Json& part = list.emplace_back();
    part["device"] = row.parts[i].device;
    part["layers"] = row.parts[i].layers;
    part["weight_bytes"] = row.parts[i].weight_bytes;
    part["bytes_per_step"] = std::llround(row.part_bytes_per_step[i]);
    set_spread(part, "gbps", row.part_spread(i, &BenchPart::gbps));
    set_spread(part, "ceiling_gbps", row.part_spread(i, &BenchPart::ceiling_gbps));
    set_spread(part, "percent_of_ceiling", row.percent_of_ceiling(i));
  }
  return list;
}

Json row_json(const BenchRow& row, const BenchLengths& lengths) {
  // Measured or counted once: minimum and maximum are the same.
  const auto set_once = [](Json& object, const std::string& key, const Json& value) {
    for (const char* end : {"", "_min", "_max"}) object[key + end] = value;
  };
  Json json;
  json["threads"] = row.threads;
  Json& prefill = json["prefill"];
  prefill["tokens"] = lengths.prompt;
  set_spread(prefill, "tokens_per_s", row.spread(&BenchSample::prefill_tokens_per_s));
  set_spread(prefill, "tops", row.spread(&BenchSample::prefill_tops));
  set_spread(prefill, "percent_of_peak", row.percent_of_peak());
  Json& decode = json["decode"];
  decode["tokens"] = lengths.gen;
  decode["depth"] = lengths.depth;
  decode["batch"] = lengths.batch;
  set_spread(decode, "tokens_per_s", row.spread(&BenchSample::decode_tokens_per_s));
  set_spread(decode, "gbps", row.spread(&BenchSample::decode_gbps));
  set_once(decode, "bytes_per_step", std::llround(row.bytes_per_step));
  set_spread(decode, "percent_of_ceiling", row.percent_of_ceiling());
  set_spread(json, "ceiling_gbps", row.spread(&BenchSample::ceiling_gbps));
  set_spread(json, "peak_tops", row.spread(&BenchSample::peak_tops));
  set_once(json, "load_s", row.load_s);
  set_once(json, "peak_rss_bytes", row.peak_rss_bytes);
  json["memory"] = row.memory;
  json["placement"] = placement_json(row.placement);
  if (!row.parts.empty()) json["parts"] = parts_json(row);
  json["repeat"] = lengths.repeat;
  return json;
}

void print_json_rows(const std::vector<BenchRow>& rows, const BenchLengths& lengths) {
  // The keys of the first row stand at the top, so that a script need not care for lists.
  Json json = row_json(rows.front(), lengths);
  if (rows.size() > 1) {
    Json& runs = json["runs"] = Json::array();
    for (const BenchRow& row : rows) runs.push_back(row_json(row, lengths));
  }
  print_json(json);
}

std::string range_text(const Spread& spread, int digits) {
  return fmt::format("{:.{}f} ({:.{}f}-{:.{}f})", spread.median, digits, spread.min, digits,
                     spread.max, digits);
}

std::string rows_text(const std::vector<BenchRow>& rows) {
  Table table;
  table.row({"workers", "prefill tok/s", "% of peak", "decode tok/s", "GB/s", "ceiling GB/s",
             "% of ceiling", "load s", "peak RSS"});
  for (const BenchRow& row : rows) {
    table.row({std::to_string(row.threads),
               range_text(row.spread(&BenchSample::prefill_tokens_per_s), 1),
               range_text(row.percent_of_peak(), 0),
               range_text(row.spread(&BenchSample::decode_tokens_per_s), 1),
               range_text(row.spread(&BenchSample::decode_gbps), 1),
               range_text(row.spread(&BenchSample::ceiling_gbps), 1),
               range_text(row.percent_of_ceiling(), 0), fmt::format("{:.2f}", row.load_s),
               human_bytes(row.peak_rss_bytes)});
  }
  return table.text();
}

/// Each half at its own ceiling.
std::string parts_text(const BenchRow& row) {
  Table table;
  table.row({"part", "layers", "MB per step", "GB/s", "ceiling GB/s", "% of ceiling"});
  for (size_t i = 0; i < row.parts.size(); ++i) {
    table.row({row.parts[i].device, std::to_string(row.parts[i].layers),
               fmt::format("{:.1f}", row.part_bytes_per_step[i] / 1e6),
               range_text(row.part_spread(i, &BenchPart::gbps), 1),
               range_text(row.part_spread(i, &BenchPart::ceiling_gbps), 1),
               range_text(row.percent_of_ceiling(i), 0)});
  }
  return table.text();
}

void append_csv(std::vector<std::string>& cells, const Spread& spread) {
  for (const double value : {spread.median, spread.min, spread.max}) {
    cells.push_back(fmt::format("{:.6g}", value));
  }
}

std::string rows_csv(const std::vector<BenchRow>& rows, const BenchLengths& lengths) {
  Table table;
  std::vector<std::string> heading = {"threads", "prompt", "gen", "depth", "batch"};
  for (const char* name :
       {"prefill_tokens_per_s", "decode_tokens_per_s", "decode_gbps", "ceiling_gbps",
        "percent_of_ceiling", "prefill_tops", "peak_tops", "percent_of_peak"}) {
    for (const char* end : {"", "_min", "_max"}) heading.push_back(std::string(name) + end);
  }
  heading.insert(heading.end(), {"bytes_per_step", "load_s", "peak_rss_bytes"});
  table.row(heading);
  for (const BenchRow& row : rows) {
    std::vector<std::string> cells = {std::to_string(row.threads), std::to_string(lengths.prompt),
                                      std::to_string(lengths.gen), std::to_string(lengths.depth),
                                      std::to_string(lengths.batch)};
    append_csv(cells, row.spread(&BenchSample::prefill_tokens_per_s));
    append_csv(cells, row.spread(&BenchSample::decode_tokens_per_s));
    append_csv(cells, row.spread(&BenchSample::decode_gbps));
    append_csv(cells, row.spread(&BenchSample::ceiling_gbps));
    append_csv(cells, row.percent_of_ceiling());
    append_csv(cells, row.spread(&BenchSample::prefill_tops));
    append_csv(cells, row.spread(&BenchSample::peak_tops));
    append_csv(cells, row.percent_of_peak());
    cells.push_back(fmt::format("{:.0f}", row.bytes_per_step));
    cells.push_back(fmt::format("{:.3f}", row.load_s));
    cells.push_back(std::to_string(row.peak_rss_bytes));
    table.row(cells);
  }
  return table.csv();
}

int shared_prefix(const BenchOptions& options) {
  if (options.csv) throw UsageError{"--shared-prefix: --csv is not known here"};
  if (!options.trace.path.empty()) throw UsageError{"--shared-prefix: --trace is not known here"};
  PrefixLengths lengths;
  lengths.prefix = options.shared_prefix;
  lengths.gen = options.lengths.gen;
  lengths.repeat = options.lengths.repeat;
  const Model model = open(options, parse_counts(options.threads, "--threads").front());
  ProgressBar bar(!options.common.quiet);
  const auto samples = measure_prefix(model, lengths, bar);
  if (options.json) {
    print_json(prefix_json(samples, lengths));
  } else {
    write_stdout(prefix_text(samples, lengths));
  }
  return 0;
}

int execute(const BenchOptions& options) {
  if (options.model.empty() && options.synthetic.empty()) {
    throw UsageError{"give a MODEL or --synthetic KEY=N,..."};
  }
  if (options.shared_prefix > 0) return shared_prefix(options);
  const std::vector<int> counts = parse_counts(options.threads, "--threads");
  if (!options.trace.path.empty() && counts.size() > 1) {
    throw UsageError{"--trace: give one number of --threads"};
  }
  TraceFile trace(options.trace);
  std::vector<BenchRow> rows;
  for (const int threads : counts) rows.push_back(measure_with(options, threads, trace));
  if (options.json) {
    print_json_rows(rows, options.lengths);
  } else if (options.csv) {
    write_stdout(rows_csv(rows, options.lengths));
  } else {
    const BenchLengths& n = options.lengths;
    write_stdout(fmt::format(
        "{} tokens of prefill, {} of decode behind {}, {} together; {:.1f} MB per "
        "step; median of {} (min-max)\n",
        n.prompt, n.gen, n.depth, n.batch, rows.front().bytes_per_step / 1e6, n.repeat));
    write_stdout(rows_text(rows));
    for (const BenchRow& row : rows) {
      if (!row.parts.empty()) write_stdout("\n" + parts_text(row));
      // Where there is one node only, there is nothing to tell.
      if (row.placement.nodes.size() > 1) write_stdout("\n" + placement_text(row.placement));
    }
  }
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  add_command<BenchOptions>(app, action, "bench", "Measure speed beside the memory's ceiling",
                            execute);
}

}  // namespace qllm::app
