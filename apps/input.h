// What enters: texts from arguments, files and standard input; lists of token ids.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qllm::app {

/// Wrong usage that only shows once the arguments are looked at together: status 2.
struct UsageError {
  std::string message;
};

/// All bytes of a file, or of standard input for "-". Throws Error (not_found, io).
std::string read_text(const std::string& path);

/// `-p TEXT | -f FILE | -`.
struct TextSource {
  std::optional<std::string> prompt;
  std::optional<std::string> file;
  std::optional<std::string> dash;

  void add_to(CLI::App& command, const std::string& what);
  /// Standard input when "-" was given, or nothing was and it is no terminal. Throws UsageError.
  std::string read() const;
};

/// "1,2,3", "[1, 2, 3]" or numbers between spaces; "-" reads them from standard input. Throws Error
/// (invalid_argument) naming what is no id.
std::vector<int32_t> parse_ids(const std::string& text);

/// "1,2" as positive numbers. Throws UsageError naming `option`.
std::vector<int> parse_counts(const std::string& text, std::string_view option);

/// Lines of standard input, read as they come.
class LineReader {
 public:
  /// The next line without its end, or nothing at the end of input. Throws Error (io), Interrupted
  /// inside an InterruptScope.
  std::optional<std::string> next();

 private:
  static void wait_for_input();

  std::string buffer_;
  bool ended_ = false;
};

}  // namespace qllm::app
