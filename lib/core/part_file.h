// A large file that appears whole or not at all, written by one process at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace qllm {

/// Written as "<path>.part" under a lock (flock), brought to the disk, then renamed. A process that
/// is killed leaves at most the .part, which the next one that writes the same path takes over.
class PartFile {
 public:
  /// Asked every 50 ms while another process holds the lock; returning false gives up.
  using WaitFn = std::function<bool()>;

  /// `mode`: permissions, less the umask. Without `wait` a lock that is held is an error.
  /// Throws io; cancelled where `wait` says no.
  PartFile(const std::string& path, unsigned mode, const WaitFn& wait = {});
  /// Removes what was written unless it was committed.
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  /// Takes room on the disk for the whole file, so that a full one is known before the work.
  /// Throws io, naming it.
  void reserve(int64_t bytes);
  /// From several threads at once. Throws io, naming a full disk.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  /// Starts to bring what was written to the disk, without waiting.
  void start_writing_back() const noexcept;
  /// Brings all to the disk and takes the place of what stood there. Throws io.
  void commit();

  /// Removes a .part beside `path` that no process holds; for folders of many paths, given the
  /// .part's own name.
  static void remove_stale(const std::string& part) noexcept;

 private:
  bool lock(unsigned mode, const WaitFn& wait);
  [[noreturn]] void fail_io(const char* what, int error) const;

  std::string path_;
  std::string part_;
  int fd_ = -1;
};

}  // namespace qllm
