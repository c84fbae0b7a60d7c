#include "engine/content_key.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/errors.h"
#include "support/temp_dir.h"

namespace {

using namespace qllm;
using namespace qllm::test;

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

size_t memories(const TempDir& dir) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    count += entry.path().extension() == ".id" ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_CASE("content key: of the bytes, not of the name") {
  const TempDir dir;
  const std::string a = dir.path() / "a";
  const std::string b = dir.path() / "b";
  const std::string text(3 << 20, 'x');
  write(a, text);
  write(b, text);
  CHECK(content_key(a) == content_key(b));
  for (const size_t at : {size_t{0}, text.size() / 2, text.size() - 1}) {
    std::string other = text;
    other[at] = 'y';
    write(b, other);
    CHECK(content_key(a) != content_key(b));
  }
  write(b, text + std::string(1, '\0'));
  CHECK(content_key(a) != content_key(b));
  check_error(ErrorCode::not_found, "missing", [&] { content_key(dir.path() / "missing"); });
  check_error(ErrorCode::io, "regular", [&] { content_key(dir.path()); });
  check_error(ErrorCode::cancelled, "cancelled",
              [&] { content_key(a, [](double) { return false; }); });
}

TEST_CASE("content key: remembered for a file that was not touched since, and not too soon") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  write(path, "model");
  const uint64_t key = content_key(path);
  CHECK(remembered_content_key(path, dir.path()) == key);
  CHECK(memories(dir) == 0);  // just written: its times may not tell it from the next change
  // A memory is believed as long as the file's identity is the one it was made for; there is no way
  // to set back ctime, so that one that is made can only be seen after two seconds.
  struct timespec wait = {2, 200000000};
  nanosleep(&wait, nullptr);
  wait = {1, 0};
  nanosleep(&wait, nullptr);
  CHECK(remembered_content_key(path, dir.path()) == key);
  REQUIRE(memories(dir) == 1);
  std::string memory;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    if (entry.path().extension() == ".id") memory = entry.path();
  }
  std::ifstream in(memory);
  std::string identity;
  std::getline(in, identity);
  write(memory, identity + "\n0123456789abcdef\n");
  CHECK(remembered_content_key(path, dir.path()) == 0x0123456789abcdef);
  for (const std::string damaged : {"", "nonsense", "\n0123456789abcdef\n"}) {
    write(memory, damaged);
    CHECK(remembered_content_key(path, dir.path()) == key);
  }
  write(memory, identity + "\n0123456789abcdef");  // cut short
  CHECK(remembered_content_key(path, dir.path()) == key);
  write(path, "other");
  CHECK(remembered_content_key(path, dir.path()) == content_key(path));
  CHECK(remembered_content_key(path, "/nowhere") == content_key(path));
}
