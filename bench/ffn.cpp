// One SwiGLU FFN through the backend and its plan, over the number of tokens M: time, GB/s, TOPS,
// and percent of the ceiling that binds; and the M from which on arithmetic binds. The timed step
// is what the graph of ffn_model.h says: a copied input row per token, RMSNorm and quantization,
// gate and up, SwiGLU (with its Hadamard blocks), quantization, down with residual, and the copy of
// one row out.
#include <fmt/format.h>

#include <iostream>
#include <optional>

#include "core/error.h"
#include "ffn_run.h"
#include "support.h"

namespace {

using namespace qllm;
using namespace qllm::bench;

struct Settings {
  CommonFlags flags;
  FfnOptions ffn;
  std::vector<int64_t> m = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  std::vector<std::string> weights = {"int8", "int4"};
  int64_t ceiling_bytes = int64_t{512} << 20;
  double least_ms = 40;
};

/// One M of one scheme: a value of each repeat.
struct Row {
  explicit Row(int64_t tokens) : m(tokens) {}

  int64_t m;
  std::vector<double> seconds, gbps, tops, percent, read, peak;

  void add(const Work& work, const Ceilings& c, double s) {
    seconds.push_back(s);
    gbps.push_back(work.bytes / s / 1e9);
    tops.push_back(work.operations / s / 1e12);
    percent.push_back(percent_of_ceiling(work, c, s));
    read.push_back(c.gbps);
    peak.push_back(c.tops);
  }
  Ceilings ceilings() const { return {summarize(read).median, summarize(peak).median}; }
};

struct Result {
  std::string name;
  std::string unavailable;  // why; empty where it was measured
  std::optional<Ffn> ffn;
  std::vector<Row> rows;

  Ceilings ceilings() const {
    std::vector<double> read, peak;
    for (const Row& row : rows) {
      read.insert(read.end(), row.read.begin(), row.read.end());
      peak.insert(peak.end(), row.peak.begin(), row.peak.end());
    }
    return {summarize(read).median, summarize(peak).median};
  }
  double turn() const { return turning_point(ffn->fixed(), ffn->each(), ceilings()); }
  double measured_turn() const {
    std::vector<Timing> timings;
    for (const Row& row : rows) {
      timings.push_back({static_cast<double>(row.m), summarize(row.seconds).median});
    }
    return measured_turning_point(timings);
  }
};

std::vector<Result> prepare(const Settings& settings) {
  std::vector<Result> results(settings.weights.size());
  for (size_t i = 0; i < results.size(); ++i) {
    Result& result = results[i];
    result.name = settings.weights[i];
    // A name that is none is an error; a scheme that is not built is a row that says so.
    const Scheme scheme = parse_scheme(result.name == "int4" ? "int4-g128" : result.name);
    try {
      result.ffn.emplace(settings.ffn, scheme);
      for (const int64_t m : settings.m) result.rows.emplace_back(m);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::unsupported) throw;
      result.unavailable = e.what();
    }
  }
  return results;
}

/// One round over all M and schemes, the ceilings taken before and after each.
void measure_round(const Settings& settings, std::vector<Result>& results) {
  for (size_t i = 0; i < settings.m.size(); ++i) {
    for (Result& result : results) {
      if (!result.ffn) continue;
      Row& row = result.rows[i];
      const Ceilings before = result.ffn->ceilings(settings.ceiling_bytes);
      const double seconds = result.ffn->seconds(row.m, settings.least_ms / 1e3);
      const Ceilings after = result.ffn->ceilings(settings.ceiling_bytes);
      row.add(result.ffn->work(row.m),
              {(before.gbps + after.gbps) / 2, (before.tops + after.tops) / 2}, seconds);
    }
  }
}

nlohmann::json row_json(const Result& result, const Row& row) {
  const Work work = result.ffn->work(row.m);
  std::vector<double> ms = row.seconds;
  for (double& v : ms) v *= 1e3;
  return {{"weights", result.name},
          {"m", row.m},
          {"ms", to_json(summarize(ms))},
          {"gbps", to_json(summarize(row.gbps))},
          {"tops", to_json(summarize(row.tops))},
          {"bytes", work.bytes},
          {"operations", work.operations},
          {"intensity", work.intensity()},
          {"bound", bound_by_memory(work, row.ceilings()) ? "memory" : "arithmetic"},
          {"percent_of_ceiling", to_json(summarize(row.percent))},
          {"ceiling_gbps", to_json(summarize(row.read))},
          {"peak_tops", to_json(summarize(row.peak))}};
}

void print_json(const Settings& settings, const std::vector<Result>& results) {
  nlohmann::json document = {{"d_model", settings.ffn.shape.d_model},
                             {"d_ff", settings.ffn.shape.d_ff},
                             {"repeat", settings.flags.repeat}};
  for (const Result& result : results) {
    nlohmann::json& scheme = document["schemes"][result.name];
    if (!result.ffn) {
      scheme = {{"unavailable", result.unavailable}};
      continue;
    }
    const BackendInfo info = result.ffn->info();
    document["threads"] = info.workers;
    document["isa"] = info.isa_used;
    scheme = {{"weight_bytes", result.ffn->fixed().bytes},
              {"load_s", result.ffn->load_s()},
              {"ceiling_gbps", result.ceilings().gbps},
              {"peak_tops", result.ceilings().tops},
              {"turning_m", result.turn()},
              {"measured_turning_m", result.measured_turn()}};
    for (const Row& row : result.rows) document["results"].push_back(row_json(result, row));
  }
  std::cout << document.dump(2) << "\n";
}

void print_scheme(const Result& result) {
  if (!result.ffn) {
    fmt::print("\n{}: not available: {}\n", result.name, result.unavailable);
    return;
  }
  fmt::print(
      "\n{}: {:.1f} MB of weights, loaded in {:.1f} s\n{:>5}  {:>9}  {:>19}  {:>6}  {:>7}  "
      "{:>7}  {:<10}  {:>18}  {:>9}  {:>9}\n",
      result.name, result.ffn->fixed().bytes / 1e6, result.ffn->load_s(), "M", "ms", "(min-max)",
      "GB/s", "TOPS", "ops/B", "bound", "% of it (min-max)", "read GB/s", "peak TOPS");
  for (const Row& row : result.rows) {
    const Work work = result.ffn->work(row.m);
    const Summary s = summarize(row.seconds);
    const Summary percent = summarize(row.percent);
    fmt::print(
        "{:>5}  {:>9.2f}  {:>19}  {:>6.1f}  {:>7.3f}  {:>7.1f}  {:<10}  {:>18}  {:>9.1f}  "
        "{:>9.3f}\n",
        row.m, s.median * 1e3, fmt::format("({:.2f}-{:.2f})", s.min * 1e3, s.max * 1e3),
        summarize(row.gbps).median, summarize(row.tops).median, work.intensity(),
        bound_by_memory(work, row.ceilings()) ? "memory" : "arithmetic",
        fmt::format("{:.0f} ({:.0f}-{:.0f})", percent.median, percent.min, percent.max),
        row.ceilings().gbps, row.ceilings().tops);
  }
  fmt::print(
      "turns from memory to arithmetic at M = {:.1f} by the ceilings ({:.1f} GB/s, {:.3f} "
      "TOPS); measured flat and slope meet at M = {:.1f}\n",
      result.turn(), result.ceilings().gbps, result.ceilings().tops, result.measured_turn());
}

void print_table(const Settings& settings, const std::vector<Result>& results) {
  for (const Result& result : results) {
    if (!result.ffn) continue;
    const BackendInfo info = result.ffn->info();
    fmt::print(
        "FFN of {} x {}, {} worker(s), {}; {} rounds, medians. GB/s: packed weights once, and "
        "input and output rows; TOPS: two operations a weight and token\n",
        settings.ffn.shape.d_model, settings.ffn.shape.d_ff, info.workers, info.isa_used,
        settings.flags.repeat);
    break;
  }
  for (const Result& result : results) print_scheme(result);
}

void add_options(CLI::App& app, Settings& settings) {
  settings.flags.repeat = 5;
  settings.flags.add_to(app);
  const auto width = CLI::Range(int64_t{64}, int64_t{65536});
  app.add_option("--d-model", settings.ffn.shape.d_model, "width of the residual")
      ->capture_default_str()
      ->check(width);
  app.add_option("--d-ff", settings.ffn.shape.d_ff, "width between the matrices")
      ->capture_default_str()
      ->check(width);
  app.add_option("--m", settings.m, "numbers of tokens")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{65536}));
  app.add_option("--weights", settings.weights,
                 "schemes, such as int8, int4 (that is int4-g128) or int4-g32-sym")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--hadamard", settings.ffn.hadamard,
                 "blocks that turn the input of down under int8, as in a rotated model; 0: none")
      ->capture_default_str()
      ->check(CLI::IsMember({0, 64}));
  app.add_option("--ceiling-bytes", settings.ceiling_bytes,
                 "what a reading of the bandwidth streams")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->check(CLI::Range(int64_t{64} << 20, int64_t{1} << 40));
  app.add_option("--ms", settings.least_ms, "least milliseconds of steps per measurement")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 60000.0));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "One SwiGLU FFN through the cpu backend: time, GB/s, TOPS and what binds, by tokens.");
  Settings settings;
  add_options(app, settings);
  CLI11_PARSE(app, argc, argv);
  settings.ffn.threads = settings.flags.threads;
  settings.ffn.most_tokens = *std::max_element(settings.m.begin(), settings.m.end());
  try {
    std::vector<Result> results = prepare(settings);
    for (int round = 0; round < settings.flags.repeat; ++round) measure_round(settings, results);
    settings.flags.json ? print_json(settings, results) : print_table(settings, results);
  } catch (const std::exception& e) {
    std::cerr << "ffn: error: " << e.what() << "\n";
    return 1;
  }
}
