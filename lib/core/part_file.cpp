#include "core/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "core/file.h"

namespace qllm {
namespace {

constexpr int kMostTries = 1000;  // of opening what others keep renaming
constexpr auto kWait = std::chrono::milliseconds(50);

/// Whether `fd` is still what the name stands for: another process may have renamed it while this
/// one waited for its lock.
bool has_name(int fd, const std::string& name) {
  struct stat opened = {};
  struct stat named = {};
  return ::fstat(fd, &opened) == 0 && ::lstat(name.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/// A file of our own with one name: in a folder that all may write to, a stranger could have made
/// one of that name.
bool is_own(int fd) {
  struct stat status = {};
  return ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == ::geteuid() &&
         status.st_nlink == 1;
}

}  // namespace

PartFile::PartFile(const std::string& path, unsigned mode, const WaitFn& wait)
    : path_(path), part_(path + ".part") {
  for (int i = 0; i < kMostTries; ++i) {
    if (lock(mode, wait)) break;
  }
  require(fd_ >= 0, ErrorCode::io, "{}: cannot be locked", part_);
  const int error = !is_own(fd_) ? EPERM : ::ftruncate(fd_, 0) != 0 ? errno : 0;
  if (error == 0) return;
  ::close(fd_);
  fail_io("cannot write", error);
}

/// One try; false: again.
bool PartFile::lock(unsigned mode, const WaitFn& wait) {
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int fd = ::open(part_.c_str(), flags, static_cast<mode_t>(mode));
  if (fd < 0) fail_io("cannot create", errno);
  int result = ::flock(fd, LOCK_EX | LOCK_NB);
  while (result != 0 && errno == EWOULDBLOCK && wait && wait()) {
    std::this_thread::sleep_for(kWait);
    result = ::flock(fd, LOCK_EX | LOCK_NB);
  }
  if (result != 0) {
    const int error = errno;
    ::close(fd);
    if (error == EINTR) return false;
    require(error != EWOULDBLOCK || !wait, ErrorCode::cancelled, "{}: cancelled", path_);
    require(error != EWOULDBLOCK, ErrorCode::io, "{}: another process is writing it", path_);
    fail_io("cannot lock", error);
  }
  if (has_name(fd, part_)) {
    fd_ = fd;
    return true;
  }
  ::close(fd);
  return false;
}

PartFile::~PartFile() {
  if (fd_ < 0) return;
  ::unlink(part_.c_str());  // under the lock: it is ours
  ::close(fd_);
}

void PartFile::fail_io(const char* what, int error) const {
  fail(ErrorCode::io, "{}: {}: {}", path_, what, std::strerror(error));
}

void PartFile::reserve(int64_t bytes) {
  const auto size = static_cast<off_t>(bytes);
  if (::fallocate(fd_, 0, 0, size) == 0) return;
  const bool unknown = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
  if (!unknown || ::ftruncate(fd_, size) != 0) fail_io("no room for the file", errno);
}

void PartFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_io("cannot write", n < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void PartFile::start_writing_back() const noexcept {
  ::sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);  // a wish
}

void PartFile::commit() {
  if (::fsync(fd_) != 0) fail_io("cannot bring to the disk", errno);
  if (::rename(part_.c_str(), path_.c_str()) != 0) fail_io("cannot put in place", errno);
  ::close(fd_);
  fd_ = -1;
  sync_folder(path_);
}

void PartFile::remove_stale(const std::string& part) noexcept {
  const int fd = ::open(part.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return;
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0 && has_name(fd, part)) ::unlink(part.c_str());
  ::close(fd);
}

}  // namespace qllm
