#include "engine/content_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "core/checksum.h"
#include "core/error.h"
#include "core/math.h"
#include "core/part_file.h"

namespace qllm {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;
constexpr unsigned kMostThreads = 4;  // a disk, or two channels of memory, need no more
constexpr int64_t kRecentSeconds = 2;
constexpr unsigned kMode = 0600;

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : path_(path) {
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0) fail_io(errno);
    if (::fstat(fd_, &status_) != 0 || !S_ISREG(status_.st_mode)) {
      ::close(fd_);
      fail(ErrorCode::io, "{}: is not a regular file", path);
    }
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const struct stat& status() const { return status_; }
  int64_t size() const { return static_cast<int64_t>(status_.st_size); }

  void read_at(int64_t at, std::span<std::byte> out) const {
    while (!out.empty()) {
      const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_io(errno);
      require(n > 0, ErrorCode::io, "{}: it shrinks while it is read", path_);
      out = out.subspan(static_cast<size_t>(n));
      at += n;
    }
  }

 private:
  [[noreturn]] void fail_io(int error) const {
    fail(error == ENOENT || error == ENOTDIR ? ErrorCode::not_found : ErrorCode::io, "{}: {}",
         path_, std::strerror(error));
  }

  const std::string& path_;
  int fd_ = -1;
  struct stat status_ = {};
};

/// Checksums of the chunks of a file, made by whoever comes.
class Chunks {
 public:
  explicit Chunks(const OpenFile& file)
      : file_(file), sums_(static_cast<size_t>(ceil_div(file.size(), kChunk))) {}

  /// Rethrows nothing: error() has what went wrong.
  void help(const std::function<bool(double)>& go_on) noexcept {
    try {
      std::vector<std::byte> buffer(kChunk);
      for (size_t i = next_++; i < sums_.size() && !stop_; i = next_++) {
        const auto at = static_cast<int64_t>(i) * kChunk;
        const auto bytes =
            std::span(buffer).first(static_cast<size_t>(std::min(kChunk, file_.size() - at)));
        file_.read_at(at, bytes);
        sums_[i] = checksum(bytes, i);  // 64 bits: a key, not only against damage
        const double done = static_cast<double>(i) / static_cast<double>(sums_.size());
        require(!go_on || go_on(done), ErrorCode::cancelled, "reading: cancelled");
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_ = true;
    }
  }

  uint64_t sum() const {
    if (error_) std::rethrow_exception(error_);
    return checksum(std::as_bytes(std::span(sums_)), static_cast<uint64_t>(file_.size()));
  }

 private:
  const OpenFile& file_;
  std::vector<uint64_t> sums_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

uint64_t content_key(const OpenFile& file, const std::function<bool(double)>& go_on) {
  Chunks chunks(file);
  std::vector<std::thread> threads;
  const unsigned most = std::min(kMostThreads, std::thread::hardware_concurrency());
  try {
    while (threads.size() + 1 < most) threads.emplace_back([&] { chunks.help({}); });
  } catch (const std::system_error&) {  // then with those there are
  }
  chunks.help(go_on);
  for (std::thread& thread : threads) thread.join();
  return chunks.sum();
}

/// Device, inode, size and times: of what the key was remembered.
std::string identity(const struct stat& s) {
  return fmt::format("{:x} {:x} {} {}.{:09} {}.{:09}", s.st_dev, s.st_ino, s.st_size,
                     s.st_mtim.tv_sec, s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec);
}

uint64_t hash_of(const std::string& text) {
  return checksum(std::as_bytes(std::span(text.data(), text.size())));
}

bool is_recent(const struct stat& s) {
  struct timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::max(s.st_mtim.tv_sec, s.st_ctim.tv_sec) + kRecentSeconds >= now.tv_sec;
}

}  // namespace

uint64_t content_key(const std::string& path, const std::function<bool(double)>& go_on) {
  return content_key(OpenFile(path), go_on);
}

uint64_t remembered_content_key(const std::string& path, const std::string& folder,
                                const std::function<bool(double)>& go_on) {
  const OpenFile file(path);
  const std::string who = identity(file.status());
  const std::string memory = fmt::format("{}/{:016x}.id", folder, hash_of(who));
  {
    std::ifstream in(memory);
    std::string line;
    std::string key;
    // The file ends behind the key's newline: one cut short is none.
    if (std::getline(in, line) && line == who && std::getline(in, key) && !in.eof() &&
        key.size() == 16 && key.find_first_not_of("0123456789abcdef") == std::string::npos) {
      return std::stoull(key, nullptr, 16);
    }
  }
  const uint64_t key = content_key(file, go_on);
  if (is_recent(file.status())) return key;
  try {
    const std::string text = fmt::format("{}\n{:016x}\n", who, key);
    PartFile out(memory, kMode);
    out.write_at(0, std::as_bytes(std::span(text.data(), text.size())));
    out.commit();
  } catch (const Error&) {  // another process does, or the folder is read-only
  }
  return key;
}

CheckedMark::CheckedMark(const std::string& file) : file_(file), mark_(path_of(file)) {
  struct stat status = {};
  if (::stat(file_.c_str(), &status) == 0) identity_ = identity(status);
}

bool CheckedMark::holds() const {
  std::ifstream in(mark_);
  std::string line;
  // Cut short it ends without a newline.
  return std::getline(in, line) && !in.eof() && !identity_.empty() && line == identity_;
}

void CheckedMark::set() const noexcept {
  try {
    struct stat status = {};
    if (::stat(file_.c_str(), &status) != 0 || is_recent(status)) return;
    if (identity(status) != identity_) return;
    const std::string text = identity_ + "\n";
    PartFile out(mark_, kMode);
    out.write_at(0, std::as_bytes(std::span(text.data(), text.size())));
    out.commit();
  } catch (const std::exception&) {  // the file is compared again, that is all
  }
}

void CheckedMark::touch() const noexcept { ::utimensat(AT_FDCWD, mark_.c_str(), nullptr, 0); }

}  // namespace qllm
