// CPU lists as the kernel and the command line write them: "0-3,8".
#pragma once

#include <string_view>
#include <vector>

namespace qllm::cpu {

/// The CPUs of a list, ascending, each once. Items are "N" or "A-B" with A <= B, separated by
/// commas; no spaces. Throws invalid_argument, naming the item that does not parse.
std::vector<int> parse_cpu_list(std::string_view text);

}  // namespace qllm::cpu
