// Speed of the tokenizer: encode and decode of a text file with the vocabulary of a GGUF model. The
// ceiling beside each figure is the speed of copying the same bytes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/gguf.h"
#include "model/gguf_vocab.h"
#include "qllm/error.hpp"
#include "text/tokenizer.h"

namespace {

using namespace qllm;

struct Timing {
  double median_s, min_s, max_s;
};

template <typename Fn>
Timing measure(int repeat, Fn fn) {
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

struct Row {
  std::string name;
  Timing timing;
};

nlohmann::json to_json(const Timing& timing, double bytes, double tokens) {
  return {{"mb_per_s", bytes / 1e6 / timing.median_s},
          {"mb_per_s_min", bytes / 1e6 / timing.max_s},
          {"mb_per_s_max", bytes / 1e6 / timing.min_s},
          {"tokens_per_s", tokens / timing.median_s}};
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, path + ": cannot be opened");
  return {std::istreambuf_iterator<char>(file), {}};
}

void run(const std::string& model, const std::string& text_path, int repeat, bool as_json) {
  const std::string text = read_text(text_path);
  const auto tokenizer = make_tokenizer(vocab_from_gguf(*GgufFile::open(model)));
  std::vector<int32_t> ids;
  std::string sink;
  const std::vector<Row> rows{
      {"encode", measure(repeat,
                         [&] {
                           ids = tokenizer->encode(text, {false, false});
                         })},
      {"decode", measure(repeat, [&] { sink = tokenizer->decode(ids); })},
      {"copy", measure(repeat, [&] { sink.assign(text.data(), text.size()); })}};
  const auto bytes = static_cast<double>(text.size());
  const auto tokens = static_cast<double>(ids.size());
  nlohmann::json out{{"bytes", text.size()}, {"tokens", ids.size()}, {"repeat", repeat}};
  for (const Row& row : rows) out[row.name] = to_json(row.timing, bytes, tokens);
  if (as_json) {
    fmt::print("{}\n", out.dump());
    return;
  }
  fmt::print("{} bytes, {} tokens, median of {}\n", text.size(), ids.size(), repeat);
  for (const Row& row : rows) {
    fmt::print("{:8} {:10.2f} MB/s ({:.2f} to {:.2f}) {:12.0f} tokens/s\n", row.name,
               bytes / 1e6 / row.timing.median_s, bytes / 1e6 / row.timing.max_s,
               bytes / 1e6 / row.timing.min_s, tokens / row.timing.median_s);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Speed of encode and decode over a text file"};
  std::string model, text;
  int repeat = 5;
  int threads = 1;
  bool as_json = false;
  app.add_option("model", model, "GGUF file")->required();
  app.add_option("text", text, "text file")->required();
  app.add_option("--repeat", repeat, "runs; the median is shown")->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "taken for likeness with the others; one is used");
  app.add_flag("--json", as_json, "one JSON object");
  CLI11_PARSE(app, argc, argv);
  try {
    run(model, text, repeat, as_json);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
