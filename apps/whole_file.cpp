#include "whole_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "qllm/error.hpp"

namespace qllm::app {
namespace {

bool is_special_file(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

}  // namespace

WholeFile::WholeFile(std::string path) : path_(std::move(path)) {
  aside_ = is_special_file(path_) ? path_ : fmt::format("{}.part-{}", path_, ::getpid());
  file_ = std::fopen(aside_.c_str(), "wb");
  if (file_ == nullptr) fail("cannot create");
}

WholeFile::~WholeFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  if (aside_ != path_) ::unlink(aside_.c_str());
}

void WholeFile::fail(const char* what) const {
  throw Error(ErrorCode::io, fmt::format("{}: {}: {}", path_, what, std::strerror(errno)));
}

void WholeFile::put(const void* data, size_t size) {
  if (std::fwrite(data, 1, size, file_) != size) fail("cannot write");
}

void WholeFile::finish() {
  if (std::fflush(file_) != 0) fail("cannot write");
  if (aside_ != path_) {
    if (::fsync(::fileno(file_)) != 0) fail("cannot write");
    if (::rename(aside_.c_str(), path_.c_str()) != 0) fail("cannot rename the finished file");
  }
  std::fclose(std::exchange(file_, nullptr));
}

}  // namespace qllm::app
