#include "bench_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>

#include "input.h"
#include "interrupt.h"

namespace qllm::app {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Bench {
 public:
  Bench(const Model& model, const BenchLengths& lengths) : model_(model), lengths_(lengths) {
    const int64_t context = lengths.depth + std::max(lengths.prompt, lengths.gen);
    for (int64_t i = 0; i < lengths.batch; ++i) sessions_.emplace_back(model, context);
    for (Session& session : sessions_) together_.push_back(&session);
    const int64_t vocab = model.info().vocab_size;
    depth_ = fixed_ids(lengths.depth, vocab);
    prompt_ = fixed_ids(lengths.prompt, vocab);
    gen_ = fixed_ids(lengths.gen, vocab);
    logits_.resize(static_cast<size_t>(lengths.batch * vocab));
    part_bytes_ = part_bytes_per_step();
  }

  double bytes_per_step() const {
    const ModelInfo info = model_.info();
    return bytes_per_step(info.bytes_per_token, info.kv_bytes_per_token);
  }
  std::vector<double> part_bytes_per_step() const {
    std::vector<double> bytes;
    for (const ModelPart& part : model_.info().parts) {
      bytes.push_back(bytes_per_step(part.bytes_per_token, part.kv_bytes_per_token));
    }
    return bytes;
  }

  // Touches all memory that the measurements will use.
  void warm_up() {
    prefill();
    decode();
  }

  BenchSample sample() {
    BenchSample result;
    const double peak_before = model_.measure_peak_tops();
    result.prefill_tokens_per_s = prefill();
    result.peak_tops = (peak_before + model_.measure_peak_tops()) / 2;
    result.prefill_tops =
        result.prefill_tokens_per_s * static_cast<double>(model_.info().ops_per_token) / 1e12;
    // The bandwidth moves with the machine's other work: take it on both sides of the decode.
    const std::vector<double> before = ceilings();
    const std::vector<double> spent = model_.part_seconds();
    const double steps_per_s = decode();
    const std::vector<double> after = ceilings();
    result.decode_tokens_per_s = steps_per_s * static_cast<double>(lengths_.batch);
    result.decode_gbps = steps_per_s * bytes_per_step() / 1e9;
    result.ceiling_gbps = (before.front() + after.front()) / 2;
    if (!part_bytes_.empty()) add_parts(before, after, spent, &result);
    return result;
  }

 private:
  /// On average over the steps: each cache grows by one token each.
  double bytes_per_step(int64_t weights, int64_t kv_per_token) const {
    const double mean_depth =
        static_cast<double>(lengths_.depth) + static_cast<double>(lengths_.gen - 1) / 2;
    return static_cast<double>(weights) +
           static_cast<double>(kv_per_token * lengths_.batch) * mean_depth;
  }

  /// GB/s that can be read: of the model's workers, or of each part.
  std::vector<double> ceilings() const {
    return part_bytes_.empty() ? std::vector<double>{model_.measure_read_gbps()}
                               : model_.measure_parts_gbps();
  }

  /// Each part by its own time and its own ceiling; both together in the time that each would take
  /// at its ceiling.
  void add_parts(const std::vector<double>& before, const std::vector<double>& after,
                 const std::vector<double>& spent, BenchSample* result) const {
    const std::vector<double> now = model_.part_seconds();
    double least_ns = 0;  // of a step
    for (size_t i = 0; i < part_bytes_.size(); ++i) {
      const double seconds = (now[i] - spent[i]) / static_cast<double>(lengths_.gen);
      const double ceiling = (before[i] + after[i]) / 2;
      result->parts.push_back({part_bytes_[i] / seconds / 1e9, ceiling});
      least_ns += part_bytes_[i] / ceiling;
    }
    result->ceiling_gbps = bytes_per_step() / least_ns;
  }

  void start_at_depth(Session& session) {
    throw_if_interrupted();
    if (session.position() < lengths_.depth) {
      session.reset();
      session.prefill(depth_);
    }
    session.truncate(lengths_.depth);
    throw_if_interrupted();
  }

  double prefill() {
    start_at_depth(sessions_.front());
    const auto start = Clock::now();
    sessions_.front().prefill(prompt_);
    return static_cast<double>(lengths_.prompt) / seconds_since(start);
  }

  /// Steps a second.
  double decode() {
    for (Session& session : sessions_) start_at_depth(session);
    std::vector<int32_t> ids(sessions_.size());
    const auto start = Clock::now();
    for (const int32_t id : gen_) {
      std::fill(ids.begin(), ids.end(), id);
      Session::decode_together(together_, ids, logits_);
      throw_if_interrupted();
    }
    return static_cast<double>(lengths_.gen) / seconds_since(start);
  }

  const Model& model_;
  BenchLengths lengths_;
  std::deque<Session> sessions_;
  std::vector<Session*> together_;
  std::vector<int32_t> depth_, prompt_, gen_;
  std::vector<float> logits_;
  std::vector<double> part_bytes_;  // of a step; empty where one device has all
};

int64_t parse_positive(std::string_view key, std::string_view text) {
  int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || value < 1) {
    throw UsageError{
        fmt::format("--synthetic: {}: expected a number from 1, found '{}'", key, text)};
  }
  return value;
}

void refuse_experts(std::string_view key, int64_t value) {
  if (value == 1) return;
  throw Error(
      ErrorCode::unsupported,
      fmt::format("--synthetic: {}={}: mixtures of experts are not supported yet", key, value));
}

void set_field(SyntheticShape& shape, std::string_view key, std::string_view text) {
  static const std::map<std::string_view, int64_t SyntheticShape::*> kFields = {
      {"d_model", &SyntheticShape::d_model},
      {"d_ff", &SyntheticShape::d_ff},
      {"n_layers", &SyntheticShape::n_layers},
      {"n_heads", &SyntheticShape::n_heads},
      {"n_kv_heads", &SyntheticShape::n_kv_heads},
      {"head_dim", &SyntheticShape::head_dim},
      {"vocab", &SyntheticShape::vocab}};
  if (key == "n_experts" || key == "n_experts_used") {
    refuse_experts(key, parse_positive(key, text));
    return;
  }
  const auto field = kFields.find(key);
  if (field == kFields.end()) {
    throw UsageError{fmt::format(
        "--synthetic: expected d_model, d_ff, n_layers, n_heads, n_kv_heads, head_dim, vocab, "
        "n_experts or n_experts_used, found '{}'",
        key)};
  }
  shape.*field->second = parse_positive(key, text);
}

}  // namespace

std::vector<int32_t> fixed_ids(int64_t count, int64_t vocab, uint64_t seed) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  uint64_t state = seed;
  for (int32_t& id : ids) {
    // Knuth's MMIX generator; its high bits are the good ones.
    state = state * 6364136223846793005U + 1442695040888963407U;
    id = static_cast<int32_t>((state >> 33U) % static_cast<uint64_t>(vocab));
  }
  return ids;
}

Spread BenchRow::spread(double BenchSample::*figure) const {
  std::vector<double> values;
  for (const BenchSample& sample : samples) values.push_back(sample.*figure);
  return spread_of(values);
}

Spread BenchRow::percent_of_ceiling() const {
  std::vector<double> values;
  for (const BenchSample& sample : samples) {
    values.push_back(100 * sample.decode_gbps / sample.ceiling_gbps);
  }
  return spread_of(values);
}

Spread BenchRow::percent_of_peak() const {
  std::vector<double> values;
  for (const BenchSample& sample : samples) {
    values.push_back(100 * sample.prefill_tops / sample.peak_tops);
  }
  return spread_of(values);
}

Spread BenchRow::part_spread(size_t part, double BenchPart::*figure) const {
  std::vector<double> values;
  for (const BenchSample& sample : samples) values.push_back(sample.parts[part].*figure);
  return spread_of(values);
}

Spread BenchRow::percent_of_ceiling(size_t part) const {
  std::vector<double> values;
  for (const BenchSample& sample : samples) {
    values.push_back(100 * sample.parts[part].gbps / sample.parts[part].ceiling_gbps);
  }
  return spread_of(values);
}

BenchRow measure(const Model& model, const BenchLengths& lengths, ProgressBar& bar) {
  const InterruptScope scope;
  Bench bench(model, lengths);
  BenchRow row;
  row.threads = model.machine().workers;
  row.bytes_per_step = bench.bytes_per_step();
  row.placement = model.placement();
  row.parts = model.info().parts;
  row.part_bytes_per_step = bench.part_bytes_per_step();
  bench.warm_up();
  // Before the first measurement of the ceiling, whose buffer is none of the model's.
  row.peak_rss_bytes = peak_rss_bytes();
  const std::string stage = fmt::format("measuring with {} worker(s)", row.threads);
  for (int i = 0; i < lengths.repeat; ++i) {
    bar.update(stage, static_cast<double>(i) / lengths.repeat);
    row.samples.push_back(bench.sample());
  }
  bar.clear();
  return row;
}

SyntheticShape parse_shape(const std::string& text) {
  SyntheticShape shape;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) {
      throw UsageError{fmt::format("--synthetic: expected KEY=N, found '{}'", pair)};
    }
    set_field(shape, pair.substr(0, equals), pair.substr(equals + 1));
  }
  return shape;
}

void reset_peak_rss() {
  // proc(5): 5 sets the high-water mark to what is held now. Where it is refused, the mark stays.
  std::ofstream("/proc/self/clear_refs") << "5";
}

int64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    constexpr std::string_view kKey = "VmHWM:";
    if (line.starts_with(kKey)) return std::atoll(line.c_str() + kKey.size()) * 1024;  // in KiB
  }
  return 0;
}

}  // namespace qllm::app
