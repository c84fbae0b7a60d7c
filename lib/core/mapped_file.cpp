#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/error.h"

namespace qllm {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

/// Closes a descriptor on every way out.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

size_t checked_size(const std::string& path, int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail(ErrorCode::io, "{}: {}", path, reason(errno));
  require(!S_ISDIR(info.st_mode), ErrorCode::io, "{}: is a directory", path);
  require(S_ISREG(info.st_mode), ErrorCode::io, "{}: is not a regular file", path);
  require(info.st_size > 0, ErrorCode::bad_format, "{}: the file is empty", path);
  return static_cast<size_t>(info.st_size);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    const int error = errno;
    const bool missing = error == ENOENT || error == ENOTDIR;
    fail(missing ? ErrorCode::not_found : ErrorCode::io, "{}: {}", path, reason(error));
  }
  const size_t size = checked_size(path, file.fd);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (memory == MAP_FAILED) fail(ErrorCode::io, "{}: cannot be mapped: {}", path, reason(errno));
  data_ = static_cast<const std::byte*>(memory);
  size_ = size;
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), size_); }

void MappedFile::release() const noexcept {
  ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

}  // namespace qllm
