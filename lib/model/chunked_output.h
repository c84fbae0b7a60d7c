// Bytes that many threads write here and there, put together to writes of 2 MiB at multiples of
// that: a file system then keeps the file on large pages of the page cache, and who maps it finds
// them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "core/part_file.h"

namespace qllm {

class ChunkedOutput {
 public:
  static constexpr int64_t kChunk = int64_t{2} << 20;

  explicit ChunkedOutput(PartFile& file) : file_(file) {}

  /// From several threads at once, each byte at most once. Throws io.
  void write(int64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const int64_t index = offset / kChunk;
      const int64_t at = offset % kChunk;
      const auto count = std::min(bytes.size(), static_cast<size_t>(kChunk - at));
      fill(index, at, bytes.first(count));
      bytes = bytes.subspan(count);
      offset += static_cast<int64_t>(count);
    }
  }

  /// Writes what is there of chunks that end at `offset` or before (gaps in them are zeros). No
  /// byte before it comes any more. Not beside write().
  void flush(int64_t offset) {
    while (!chunks_.empty() && (chunks_.begin()->first + 1) * kChunk <= offset) {
      const auto& [index, chunk] = *chunks_.begin();
      file_.write_at(index * kChunk, chunk.bytes);
      chunks_.erase(chunks_.begin());
    }
  }

  /// The rest, up to the end of the file.
  void finish(int64_t file_bytes) {
    flush(file_bytes);
    for (const auto& [index, chunk] : chunks_) {
      const auto left = static_cast<size_t>(file_bytes - index * kChunk);
      file_.write_at(index * kChunk, std::span(chunk.bytes).first(left));
    }
    chunks_.clear();
  }

 private:
  struct Chunk {
    std::vector<std::byte> bytes = std::vector<std::byte>(kChunk);
    int64_t filled = 0;
  };

  void fill(int64_t index, int64_t at, std::span<const std::byte> bytes) {
    std::byte* to = nullptr;
    {
      const std::lock_guard lock(mutex_);
      to = chunks_[index].bytes.data() + at;
    }
    std::memcpy(to, bytes.data(), bytes.size());
    std::map<int64_t, Chunk>::node_type whole;
    {
      const std::lock_guard lock(mutex_);
      const auto it = chunks_.find(index);
      it->second.filled += static_cast<int64_t>(bytes.size());
      if (it->second.filled == kChunk) whole = chunks_.extract(it);
    }
    if (!whole.empty()) file_.write_at(index * kChunk, whole.mapped().bytes);
  }

  PartFile& file_;
  std::mutex mutex_;
  std::map<int64_t, Chunk> chunks_;  // begun, by number; nodes stay where they are
};

}  // namespace qllm
