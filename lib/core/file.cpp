#include "core/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace qllm {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void sync_folder(const std::string& path) {
  const int fd = ::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

InputFile::InputFile(const std::string& path) : path_(path) {
  // Not blocking: a named pipe must not hold the caller before it is recognised.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    fail(errno == ENOENT ? ErrorCode::not_found : ErrorCode::io, "{}: cannot open: {}", path,
         std::strerror(errno));
  }
  struct stat status = {};
  const bool regular = ::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(fd_);
    fail(ErrorCode::io, "{}: expected a regular file", path);
  }
  size_ = static_cast<int64_t>(status.st_size);
}

InputFile::~InputFile() { ::close(fd_); }

void InputFile::read(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = ::read(fd_, out.data(), out.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorCode::io, "{}: cannot read: {}", path_, std::strerror(errno));
    require(n > 0, ErrorCode::bad_format, "{}: ends {} bytes early", path_, out.size());
    out = out.subspan(static_cast<size_t>(n));
  }
}

NewFile::NewFile(const std::string& path) : path_(path), temporary_(path + ".XXXXXX") {
  fd_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
  if (fd_ >= 0) return;
  temporary_.clear();
  fail_io("cannot create");
}

NewFile::~NewFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void NewFile::fail_io(const char* what) const {
  fail(ErrorCode::io, "{}: {}: {}", path_, what, std::strerror(errno));
}

void NewFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void NewFile::commit() {
  if (::fsync(fd_) != 0) fail_io("cannot bring to the disk");
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) fail_io("cannot close");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io("cannot put in place");
  temporary_.clear();
  sync_folder(path_);
}

}  // namespace qllm
