#include "cpu_list.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"

namespace qllm::cpu {
namespace {

// Far above what Linux can be built for (8192), and small enough that no range explodes.
constexpr int kMaxCpu = 65535;

int parse_cpu(std::string_view number, std::string_view item) {
  int value = 0;
  const char* end = number.data() + number.size();
  const auto [stop, error] = std::from_chars(number.data(), end, value);
  require(error == std::errc() && stop == end && value >= 0 && value <= kMaxCpu,
          ErrorCode::invalid_argument,
          "CPU list: expected a CPU from 0 to {} or a range A-B, found \"{}\"", kMaxCpu, item);
  return value;
}

void append_item(std::string_view item, std::vector<int>* cpus) {
  // A dash in front would be a sign: from_chars must never see it as one.
  const size_t dash = item.find('-');
  const int first = parse_cpu(item.substr(0, dash), item);
  const int last = dash == std::string_view::npos ? first : parse_cpu(item.substr(dash + 1), item);
  require(first <= last, ErrorCode::invalid_argument,
          "CPU list: expected a range A-B with A <= B, found \"{}\"", item);
  for (int cpu = first; cpu <= last; ++cpu) cpus->push_back(cpu);
}

}  // namespace

std::vector<int> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    append_item(text.substr(begin, end - begin), &cpus);
    begin = end + 1;
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

}  // namespace qllm::cpu
