#include "core/part_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "support/errors.h"
#include "support/files.h"
#include "support/temp_dir.h"

using namespace qllm;
using namespace qllm::test;

TEST_CASE("part file: appears whole or not at all") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  const std::string part = path + ".part";
  {
    PartFile file(path, 0600);
    file.reserve(100);
    CHECK(std::filesystem::file_size(part) == 100);
    CHECK_FALSE(std::filesystem::exists(path));
  }
  CHECK_FALSE(std::filesystem::exists(part));
  {
    PartFile file(path, 0600);
    file.write_at(5, bytes_of("world"));
    file.write_at(0, bytes_of("hello"));
    file.commit();
  }
  CHECK(content(path) == "helloworld");
  CHECK_FALSE(std::filesystem::exists(part));
  struct stat status = {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
}

TEST_CASE("part file: what a killed process left is taken over") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  std::ofstream(path + ".part") << "a long rest of something";
  PartFile file(path, 0600);
  file.write_at(0, bytes_of("new"));
  file.commit();
  CHECK(content(path) == "new");
}

TEST_CASE("part file: one writer at a time") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  PartFile first(path, 0600);
  check_error(ErrorCode::io, "another process is writing it", [&] { PartFile(path, 0600); });
  check_error(ErrorCode::cancelled, "cancelled",
              [&] { PartFile(path, 0600, [] { return false; }); });
  PartFile::remove_stale(path + ".part");  // held: it stays
  std::atomic<bool> waits{false};
  std::thread second([&] {
    PartFile file(path, 0600, [&] { return waits = true; });
    file.write_at(0, bytes_of("second"));
    file.commit();
  });
  while (!waits) std::this_thread::yield();
  first.write_at(0, bytes_of("the first"));
  first.commit();
  second.join();
  CHECK(content(path) == "second");
}

TEST_CASE("part file: only stale parts are removed") {
  const TempDir dir;
  const std::string part = dir.path() / "a.part";
  std::ofstream(part) << "rest";
  PartFile::remove_stale(part);
  CHECK_FALSE(std::filesystem::exists(part));
  PartFile::remove_stale(part);  // nothing there: nothing happens
}

TEST_CASE("part file: a link or another's file is not written through") {
  const TempDir dir;
  const std::string path = dir.path() / "a";
  const std::string victim = dir.path() / "victim";
  std::ofstream(victim) << "precious";
  std::filesystem::create_symlink(victim, path + ".part");
  check_error(ErrorCode::io, "cannot create", [&] { PartFile(path, 0600); });
  std::filesystem::remove(path + ".part");
  std::filesystem::create_hard_link(victim, path + ".part");
  check_error(ErrorCode::io, "cannot write", [&] { PartFile(path, 0600); });
  CHECK(content(victim) == "precious");
}

TEST_CASE("part file: where none can be made it says so") {
  const TempDir dir;
  check_error(ErrorCode::io, "no/a: cannot create",
              [&] { PartFile(dir.path() / "no" / "a", 0600); });
}
