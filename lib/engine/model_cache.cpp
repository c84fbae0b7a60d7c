#include "engine/model_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/part_file.h"
#include "engine/content_key.h"
#include "engine/model_packer.h"
#include "model/packed_format.h"

namespace qllm {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kMode = 0600;
constexpr mode_t kFolderMode = 0700;
/// Goes up when the same tensors come to be packed into other bytes.
constexpr int kPacking = 1;
constexpr int64_t kSpare = int64_t{64} << 20;  // left free on the disk

void say(const OpenOptions& options, LogLevel level, const std::string& line) {
  if (options.log) options.log(static_cast<int>(level), line);
}

/// The folder and those above it.
void make_folder(const std::string& folder) {
  for (size_t slash = folder.find('/', 1); slash != std::string::npos;
       slash = folder.find('/', slash + 1)) {
    ::mkdir(folder.substr(0, slash).c_str(), kFolderMode);  // the last one tells
  }
  const bool made = ::mkdir(folder.c_str(), kFolderMode) == 0 || errno == EEXIST;
  require(made, ErrorCode::io, "{}: cannot be made: {}", folder, std::strerror(errno));
}

struct Copy {
  std::string path;
  int64_t bytes;
  fs::file_time_type used;
};

/// The packed copies in a folder, longest unused first; what killed writers left is removed.
std::vector<Copy> copies_in(const std::string& folder) {
  std::vector<Copy> copies;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string path = entry.path().string();
    if (path.ends_with(".part")) PartFile::remove_stale(path);
    if (!path.ends_with(".qllm") || !entry.is_regular_file(error)) continue;
    const auto bytes = static_cast<int64_t>(entry.file_size(error));
    auto used = entry.last_write_time(error);
    std::error_code unmarked;
    const auto marked = fs::last_write_time(CheckedMark::path_of(path), unmarked);
    if (!unmarked) used = std::max(used, marked);
    if (!error) copies.push_back({path, bytes, used});
  }
  std::sort(copies.begin(), copies.end(),
            [](const Copy& a, const Copy& b) { return a.used < b.used; });
  return copies;
}

bool remove_copy(const std::string& path) {
  ::unlink(CheckedMark::path_of(path).c_str());
  return ::unlink(path.c_str()) == 0;
}

/// Room for `bytes` more within the cap and on the disk. Models that are open keep what they map.
void make_room(const std::string& folder, int64_t bytes, int64_t most) {
  require(bytes <= most, ErrorCode::io, "{} MiB are more than the cache's {} MiB", bytes >> 20,
          most >> 20);
  const std::vector<Copy> copies = copies_in(folder);
  int64_t total = 0;
  for (const Copy& copy : copies) total += copy.bytes;
  for (const Copy& copy : copies) {
    if (total + bytes <= most) break;
    if (remove_copy(copy.path)) total -= copy.bytes;
  }
  struct statvfs disk = {};
  if (::statvfs(folder.c_str(), &disk) != 0) return;
  const auto room = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  require(bytes + kSpare <= room, ErrorCode::io, "{} MiB are needed, the disk has {} MiB left",
          (bytes + kSpare) >> 20, room >> 20);
}

class Cache {
 public:
  Cache(const std::string& model, const OpenOptions& options) : model_(model), options_(options) {}

  std::shared_ptr<ModelImpl> open() {
    try {
      make_folder(options_.cache_folder);
    } catch (const Error& e) {
      return give_up(e);
    }
    std::string copy;
    try {
      copy = copy_of(remembered_content_key(model_, options_.cache_folder,
                                            [this](double f) { return go_on("reading", f); }));
    } catch (const Error& e) {
      if (e.code() == ErrorCode::cancelled) throw;
      return nullptr;  // the model cannot be read: who opens it says so
    }
    if (auto model = load(copy)) return model;
    // What is wrong with the model or the options is not the cache's to swallow.
    ModelPacker packer(GgufFile::open(model_), options_);
    try {
      make(copy, &packer);
    } catch (const Error& e) {
      return give_up(e);
    }
    return load(copy);
  }

 private:
  bool go_on(std::string_view stage, double fraction) const {
    return !options_.progress || options_.progress(stage, fraction);
  }

  std::string copy_of(uint64_t content) const {
    const Scheme scheme = choose_scheme(options_);
    const char* rotated = scheme.kind != SchemeKind::int8 ? "" : options_.rotate ? "-r" : "-n";
    return fmt::format("{}/{:016x}-{}{}-{}.{}.qllm", options_.cache_folder, content,
                       to_string(scheme), rotated, kPackedVersion, kPacking);
  }

  std::shared_ptr<ModelImpl> give_up(const Error& e) const {
    if (e.code() == ErrorCode::cancelled) throw e;
    say(options_, LogLevel::warning,
        fmt::format("cache: no packed copy of {} is kept: {}", model_, e.what()));
    return nullptr;
  }

  /// Null where there is none, or it was damaged and is gone now.
  std::shared_ptr<ModelImpl> load(const std::string& copy) const {
    if (::access(copy.c_str(), R_OK) != 0) return nullptr;
    std::shared_ptr<const PackedFile> file;
    try {
      file = PackedFile::open(copy);
    } catch (const Error& e) {
      // A damaged version is unsupported.
      return drop(copy, e, e.code() == ErrorCode::unsupported);
    }
    try {
      const CheckedMark mark(copy);
      const bool known_good = mark.holds();
      auto model = std::make_shared<ModelImpl>(std::move(file), options_, known_good);
      known_good ? mark.touch() : mark.set();  // used now: the last to be evicted
      return model;
    } catch (const Error& e) {
      return drop(copy, e, false);  // what a device does not support is not the copy's fault
    }
  }

  /// Removes a copy that is damaged; any other error goes on.
  std::shared_ptr<ModelImpl> drop(const std::string& copy, const Error& e, bool damaged) const {
    if (e.code() == ErrorCode::not_found) return nullptr;  // evicted by another process
    if (!damaged && e.code() != ErrorCode::bad_format && e.code() != ErrorCode::io) throw e;
    remove_copy(copy);
    say(options_, LogLevel::warning, fmt::format("cache: {}; it is made anew", e.what()));
    return nullptr;
  }

  void make(const std::string& copy, ModelPacker* packer) const {
    PartFile file(copy, kMode, [this] { return go_on("waiting for another process", 0.0); });
    if (::access(copy.c_str(), R_OK) == 0) return;  // which made it meanwhile
    make_room(options_.cache_folder, packer->file_bytes(), options_.cache_bytes);
    packer->write(file);
  }

  const std::string& model_;
  const OpenOptions& options_;
};

}  // namespace

std::shared_ptr<ModelImpl> open_cached(const std::string& path, const OpenOptions& options) {
  const bool packs = options.device.find("reference") == std::string::npos;
  if (options.cache_folder.empty() || !packs) return nullptr;
  require(options.cache_bytes > 0, ErrorCode::invalid_argument, "cache_bytes: {} is not above 0",
          options.cache_bytes);
  if (choose_scheme(options).kind == SchemeKind::fp32) return nullptr;
  return Cache(path, options).open();
}

std::string default_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  // Relative paths are invalid there (XDG Base Directory Specification).
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/qllm";
  const char* home = std::getenv("HOME");
  return home != nullptr && home[0] == '/' ? std::string(home) + "/.cache/qllm" : std::string();
}

}  // namespace qllm
