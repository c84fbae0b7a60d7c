#include "bench_prefix.h"

#include <fmt/format.h>

#include <algorithm>

#include "interrupt.h"

namespace qllm::app {
namespace {

PrefixSample sample(const Model& model, const PrefixLengths& lengths, uint64_t seed) {
  const int64_t count = lengths.prefix + lengths.question;
  const auto prompt = fixed_ids(count, model.info().vocab_size, seed);
  GenerateOptions options;
  options.max_tokens = lengths.gen;
  options.temperature = 0;
  options.ignore_end = true;
  Session first(model, count + lengths.gen);
  Session second(model, count + lengths.gen);
  const GenerateResult a = first.generate_ids(prompt, options);
  throw_if_interrupted();
  const GenerateResult b = second.generate_ids(prompt, options);
  throw_if_interrupted();
  return {a.ttft_s, b.ttft_s, b.reused_tokens, a.ids == b.ids && a.reused_tokens == 0};
}

Spread spread(const std::vector<PrefixSample>& samples, double (*figure)(const PrefixSample&)) {
  std::vector<double> values;
  for (const PrefixSample& s : samples) values.push_back(figure(s));
  return spread_of(values);
}

Spread first_ms(const std::vector<PrefixSample>& samples) {
  return spread(samples, [](const PrefixSample& s) { return 1e3 * s.first_s; });
}
Spread second_ms(const std::vector<PrefixSample>& samples) {
  return spread(samples, [](const PrefixSample& s) { return 1e3 * s.second_s; });
}
Spread percent(const std::vector<PrefixSample>& samples) {
  return spread(samples, [](const PrefixSample& s) { return 100 * s.second_s / s.first_s; });
}
bool all_equal(const std::vector<PrefixSample>& samples) {
  return std::all_of(samples.begin(), samples.end(), [](const PrefixSample& s) { return s.equal; });
}

}  // namespace

std::vector<PrefixSample> measure_prefix(const Model& model, const PrefixLengths& lengths,
                                         ProgressBar& bar) {
  const InterruptScope scope;
  sample(model, lengths, 1);
  std::vector<PrefixSample> samples;
  for (int i = 0; i < lengths.repeat; ++i) {
    bar.update("measuring two requests", static_cast<double>(i) / lengths.repeat);
    samples.push_back(sample(model, lengths, static_cast<uint64_t>(i) + 2));
  }
  bar.clear();
  return samples;
}

std::string prefix_text(const std::vector<PrefixSample>& samples, const PrefixLengths& lengths) {
  const auto show = [](const Spread& s) {
    return fmt::format("{:.1f} ({:.1f}-{:.1f})", s.median, s.min, s.max);
  };
  return fmt::format(
      "two requests of the same {} + {} tokens; median of {} (min-max)\n"
      "first token of the first: {} ms; of the second: {} ms, {} % of it\n"
      "reused: {} tokens; output {}\n",
      lengths.prefix, lengths.question, lengths.repeat, show(first_ms(samples)),
      show(second_ms(samples)), show(percent(samples)), samples.front().reused,
      all_equal(samples) ? "equal" : "DIFFERS");
}

Json prefix_json(const std::vector<PrefixSample>& samples, const PrefixLengths& lengths) {
  Json json;
  json["prefix_tokens"] = lengths.prefix;
  json["question_tokens"] = lengths.question;
  set_spread(json, "first_ttft_ms", first_ms(samples));
  set_spread(json, "second_ttft_ms", second_ms(samples));
  set_spread(json, "second_percent_of_first", percent(samples));
  json["reused_tokens"] = samples.front().reused;
  json["output_equal"] = all_equal(samples);
  json["repeat"] = lengths.repeat;
  return json;
}

}  // namespace qllm::app
