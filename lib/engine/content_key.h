// What a file holds, in 64 bits, without reading it twice.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace qllm {

/// A checksum of all bytes and their number, read by a few threads at once. `go_on` is asked now
/// and then from the calling thread. Throws not_found, io; cancelled where `go_on` says no.
uint64_t content_key(const std::string& path, const std::function<bool(double)>& go_on = {});

/// The same, remembered in `folder` under device, inode, size and times of the file: a file that
/// was not touched since is not read again. One changed in the last two seconds is not remembered
/// (its times might not show the next change). A memory that cannot be read or written is none.
uint64_t remembered_content_key(const std::string& path, const std::string& folder,
                                const std::function<bool(double)>& go_on = {});

/// That a file was compared with its checksums, remembered in a small file beside it under device,
/// inode, size and times: as long as nobody touches the file, it need not be compared again.
class CheckedMark {
 public:
  /// The file as it is now.
  explicit CheckedMark(const std::string& file);
  bool holds() const;
  /// Of the file as it was at the beginning: not where it is another by now, or changed in the last
  /// two seconds. A mark that cannot be written is none.
  void set() const noexcept;
  /// The mark's time of change is that of the file's last use.
  void touch() const noexcept;

  static std::string path_of(const std::string& file) { return file + ".ok"; }

 private:
  std::string file_;
  std::string mark_;
  std::string identity_;  // empty: there is no such file
};

}  // namespace qllm
