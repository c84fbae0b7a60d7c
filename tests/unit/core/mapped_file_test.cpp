#include "core/mapped_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "support/errors.h"
#include "support/gguf_builder.h"
#include "support/temp_dir.h"

namespace qllm {

using test::check_error;

TEST_CASE("mapped file: shows the bytes of the file") {
  const test::TempDir dir;
  test::write_file((dir.path() / "x").string(), {std::byte{7}, std::byte{8}});
  const MappedFile file((dir.path() / "x").string());
  REQUIRE(file.bytes().size() == 2);
  CHECK(file.bytes()[1] == std::byte{8});
}

TEST_CASE("mapped file: missing, directory, empty and special files are named") {
  const test::TempDir dir;
  check_error(ErrorCode::not_found, (dir.path() / "no").string() + ": No such file",
              [&] { MappedFile file((dir.path() / "no").string()); });
  check_error(ErrorCode::io, dir.path().string() + ": is a directory",
              [&] { MappedFile file(dir.path().string()); });
  test::write_file((dir.path() / "empty").string(), {});
  check_error(ErrorCode::bad_format, "the file is empty",
              [&] { MappedFile file((dir.path() / "empty").string()); });
  REQUIRE(::mkfifo((dir.path() / "fifo").string().c_str(), 0600) == 0);
  check_error(ErrorCode::io, "is not a regular file",
              [&] { MappedFile file((dir.path() / "fifo").string()); });
}

}  // namespace qllm
