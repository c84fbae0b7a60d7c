// Bytes as a saved session. The first two bytes choose which checksums are made right, as whoever
// forges a file would; the rest is the file. Whatever it holds, the library throws qllm::Error or
// restores a sequence that can be used.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/checksum.h"
#include "qllm/error.hpp"
#include "support/saved_session.h"

namespace {

using namespace qllm;
using namespace qllm::test;

void expect(bool ok) {
  if (!ok) std::abort();
}

/// A file in memory with a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::byte> bytes) : fd_(memfd_create("session", 0)) {
    expect(fd_ >= 0);
    while (!bytes.empty()) {
      const ssize_t n = write(fd_, bytes.data(), bytes.size());
      expect(n > 0);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

void put(std::vector<std::byte>& file, size_t at, uint64_t value) {
  if (at + sizeof(value) <= file.size()) std::memcpy(file.data() + at, &value, sizeof(value));
}

/// Makes the checksum at `begin + bytes` right where all of that lies in the file.
void repair(std::vector<std::byte>& file, size_t begin, size_t bytes, uint64_t seed) {
  if (begin > file.size() || bytes > file.size() - begin) return;
  put(file, begin + bytes, checksum(std::span(file).subspan(begin, bytes), seed));
}

void repair_all(std::vector<std::byte>& file, uint8_t which) {
  if (file.size() < kSavedHeaderBytes) return;
  if ((which & 1U) != 0) repair(file, 0, kSavedCheckAt, 0);
  uint64_t tokens = 0;
  uint64_t seed = 0;
  std::memcpy(&tokens, file.data() + kSavedTokensAt, sizeof(tokens));
  std::memcpy(&seed, file.data() + kSavedCheckAt, sizeof(seed));
  if (tokens > file.size()) return;
  size_t at = kSavedHeaderBytes;
  if ((which & 2U) != 0) repair(file, at, tokens * sizeof(int32_t), seed);
  at += tokens * sizeof(int32_t) + sizeof(uint64_t);
  constexpr size_t kBlock = kKvBlockTokens * 8;  // DigestStorage
  for (uint64_t i = 1; (which & 4U) != 0 && at < file.size(); ++i, at += kBlock + 8) {
    repair(file, at, kBlock, seed + i);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(2);
  std::vector<std::byte> content(bytes.begin(), bytes.end());
  repair_all(content, data[0]);
  const MemoryFile file(content);
  const int64_t capacity = 1 + data[1];
  const auto pool = make_digest_pool({3, 3});
  try {
    const auto kv = restore_sequence(file.path(), kSavedOwner, pool, capacity);
    expect(kv->length() <= capacity);
    for (const int32_t token : kv->tokens()) expect(token >= 0 && token < kSavedOwner.vocab);
    const std::vector<int32_t> more = {1, 2};
    append(*kv, more);
    kv->truncate(kv->length() / 2);
    kv->reuse_prefix(more);
  } catch (const Error&) {
  }
  expect(pool->stats().held == 0);
  return 0;
}
