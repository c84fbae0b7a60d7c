#include "engine/session_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "core/checksum.h"
#include "support/errors.h"
#include "support/saved_session.h"
#include "support/temp_dir.h"

namespace {

using namespace qllm;
using namespace qllm::test;

using Bytes = std::vector<char>;

struct Saved {
  TempDir dir;
  std::string path = dir.path() / "session";
  std::shared_ptr<KvPool> pool = make_digest_pool({8, 8});
  Bytes bytes;

  explicit Saved(int64_t count) {
    KvCache kv(pool, 512);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), 5);
    if (count > 0) append(kv, ids);
    save_sequence(path, kSavedOwner, kv);
    std::ifstream file(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  std::unique_ptr<KvCache> restore(const SequenceOwner& owner = kSavedOwner,
                                   int64_t capacity = 512) {
    return restore_sequence(path, owner, pool, capacity);
  }
  void write(const Bytes& content) const {
    std::ofstream(path, std::ios::binary)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
  }
};

/// Puts a number into a header and makes its checksum right again, as whoever forges one would.
Bytes forged(Bytes bytes, size_t at, uint64_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
  const uint64_t check = checksum(std::as_bytes(std::span(bytes)).first(kSavedCheckAt));
  std::memcpy(bytes.data() + kSavedCheckAt, &check, sizeof(check));
  return bytes;
}

}  // namespace

TEST_CASE("session file: what was saved comes back") {
  for (const int64_t count : {0, 1, 63, 64, 65, 200}) {
    CAPTURE(count);
    Saved saved(count);
    const auto kv = saved.restore();
    CHECK(kv->length() == count);
    CHECK(is_intact(*kv));
    const std::vector<int32_t> more = {7, 8, 9};
    append(*kv, more);
    CHECK(is_intact(*kv));
  }
}

TEST_CASE("session file: every flipped bit is found") {
  Saved saved(70);
  for (size_t at = 0; at < saved.bytes.size(); ++at) {
    Bytes damaged = saved.bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    saved.write(damaged);
    CAPTURE(at);
    CHECK_THROWS_AS(saved.restore(), Error);
  }
  CHECK(saved.pool->stats().held == 0);
  Bytes damaged = saved.bytes;
  damaged[kSavedHeaderBytes + 1] ^= 1;
  saved.write(damaged);
  check_error(ErrorCode::bad_format, saved.path + ": the tokens are damaged",
              [&] { saved.restore(); });
  damaged = saved.bytes;
  damaged.back() ^= 1;
  saved.write(damaged);
  check_error(ErrorCode::bad_format, "block 1 of 2 is damaged", [&] { saved.restore(); });
}

TEST_CASE("session file: blocks in another order are found") {
  Saved saved(128);
  const size_t block = static_cast<size_t>(saved.pool->storage().block_bytes()) + 8;
  const auto first = saved.bytes.end() - static_cast<std::ptrdiff_t>(2 * block);
  Bytes damaged = saved.bytes;
  std::rotate(damaged.begin() + (first - saved.bytes.begin()),
              damaged.end() - static_cast<std::ptrdiff_t>(block), damaged.end());
  saved.write(damaged);
  check_error(ErrorCode::bad_format, "block 0 of 2 is damaged", [&] { saved.restore(); });
}

TEST_CASE("session file: one of another length is found") {
  Saved saved(70);
  for (size_t length = 0; length < saved.bytes.size(); ++length) {
    saved.write(
        Bytes(saved.bytes.begin(), saved.bytes.begin() + static_cast<std::ptrdiff_t>(length)));
    CAPTURE(length);
    CHECK_THROWS_AS(saved.restore(), Error);
  }
  Bytes longer = saved.bytes;
  longer.push_back('x');
  saved.write(longer);
  check_error(ErrorCode::bad_format, "for 70 tokens, found", [&] { saved.restore(); });
  std::filesystem::remove(saved.path);
  check_error(ErrorCode::not_found, "cannot open", [&] { saved.restore(); });
}

TEST_CASE("session file: another model, format, version or room is named") {
  Saved saved(70);
  check_error(ErrorCode::invalid_argument, "another model or scheme", [&] {
    saved.restore({kSavedOwner.model + 1, kSavedOwner.vocab});
  });
  check_error(ErrorCode::invalid_argument, "another model: vocabulary: expected 999, found 1000",
              [&] {
                saved.restore({kSavedOwner.model, 999});
              });
  check_error(ErrorCode::context_full, "70 tokens do not fit into a context of 69",
              [&] { saved.restore(kSavedOwner, 69); });
  saved.write(forged(saved.bytes, 8, 2));
  check_error(ErrorCode::unsupported, "of version 2, this library reads 1",
              [&] { saved.restore(); });
  saved.write(forged(saved.bytes, 80, 0x3A67736E6F6F6DU));
  check_error(ErrorCode::invalid_argument, "another KV format: expected 'digests', found 'moonsg:'",
              [&] { saved.restore(); });
  saved.write(Bytes(4000, 'q'));
  check_error(ErrorCode::bad_format, "is no saved session", [&] { saved.restore(); });
  saved.write(saved.bytes);
  KvCache other(saved.pool, 512);
  append(other, std::vector<int32_t>(400, 1));
  check_error(ErrorCode::out_of_memory, "KV memory", [&] { saved.restore(); });
}

TEST_CASE("session file: a forged header asks for nothing that the file does not hold") {
  Saved saved(70);
  for (const uint64_t tokens :
       {uint64_t{0}, uint64_t{1}, uint64_t{69}, uint64_t{71}, uint64_t{1000}, uint64_t{1} << 40U,
        uint64_t{1} << 63U, ~uint64_t{0}}) {
    CAPTURE(tokens);
    saved.write(forged(saved.bytes, kSavedTokensAt, tokens));
    CHECK_THROWS_AS(saved.restore(), Error);
  }
  // Each other field of the header, each with values of all sizes.
  for (size_t at = 0; at < kSavedCheckAt; at += 8) {
    for (int bit = 0; bit < 64; bit += 3) {
      uint64_t value = 0;
      std::memcpy(&value, saved.bytes.data() + at, sizeof(value));
      saved.write(forged(saved.bytes, at, value ^ (uint64_t{1} << bit)));
      CAPTURE(at);
      CHECK_THROWS_AS(saved.restore(), Error);
    }
  }
  CHECK(saved.pool->stats().held == 0);
}

TEST_CASE("session file: tokens outside of the vocabulary are refused") {
  Saved saved(70);
  Bytes bytes = saved.bytes;
  const int32_t token = 1000;
  std::memcpy(bytes.data() + kSavedHeaderBytes, &token, sizeof(token));
  uint64_t seed = 0;
  std::memcpy(&seed, bytes.data() + kSavedCheckAt, sizeof(seed));
  const uint64_t check =
      checksum(std::as_bytes(std::span(bytes)).subspan(kSavedHeaderBytes, 70 * 4), seed);
  std::memcpy(bytes.data() + kSavedHeaderBytes + 70 * 4, &check, sizeof(check));
  saved.write(bytes);
  check_error(ErrorCode::bad_format, "token 1000 is outside the vocabulary of 1000",
              [&] { saved.restore(); });
}
