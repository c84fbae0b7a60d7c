#include "core/file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/errors.h"
#include "support/files.h"
#include "support/temp_dir.h"

namespace {

using namespace qllm;
using namespace qllm::test;

size_t files_in(const TempDir& dir) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir.path()), {}));
}

}  // namespace

TEST_CASE("file: a new one appears whole or not at all") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  {
    NewFile file(path);
    file.write(bytes_of("half"));
    CHECK_FALSE(std::filesystem::exists(path));
  }
  CHECK(files_in(dir) == 0);  // given up: nothing stays behind
  for (const std::string text : {"first", "second"}) {
    NewFile file(path);
    file.write(bytes_of(text.substr(0, 2)));
    file.write(bytes_of(text.substr(2)));
    file.commit();
    CHECK(content(path) == text);
  }
  CHECK(files_in(dir) == 1);
  struct stat status = {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
}

TEST_CASE("file: where none can be made it says so") {
  const TempDir dir;
  const std::string missing = dir.path() / "no" / "a";
  check_error(ErrorCode::io, missing + ": cannot create", [&] { NewFile file(missing); });
  const std::string folder = dir.path() / "folder";
  std::filesystem::create_directory(folder);
  std::ofstream(folder + "/x") << "x";
  check_error(ErrorCode::io, folder + ": cannot put in place", [&] {
    NewFile file(folder);
    file.commit();
  });
  CHECK(files_in(dir) == 1);
}

TEST_CASE("file: reads in order, and names an early end") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  std::ofstream(path) << "12345678";
  InputFile file(path);
  CHECK(file.size() == 8);
  std::array<std::byte, 5> part = {};
  file.read(part);
  CHECK(std::to_integer<char>(part[4]) == '5');
  check_error(ErrorCode::bad_format, "ends 2 bytes early", [&] { file.read(part); });
  check_error(ErrorCode::not_found, "cannot open", [&] { InputFile f(path + "-no"); });
  check_error(ErrorCode::io, "regular file", [&] { InputFile f(dir.path()); });
  check_error(ErrorCode::io, "regular file", [] { InputFile f("/dev/zero"); });
}
