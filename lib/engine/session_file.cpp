#include "engine/session_file.h"

#include <array>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/math.h"

namespace qllm {
namespace {

constexpr std::string_view kMagic = "qllm-kv\n";
constexpr uint64_t kVersion = 1;
constexpr size_t kLayoutBytes = 64;

/// What stands at the begin of a file, in this order, little-endian, without padding.
struct Header {
  std::array<char, 8> magic = {};
  uint64_t version = kVersion;
  uint64_t model = 0;
  uint64_t vocab = 0;
  uint64_t n_layers = 0, n_kv_heads = 0, head_dim = 0;
  uint64_t block_tokens = 0, block_bytes = 0;
  uint64_t tokens = 0;
  std::array<char, kLayoutBytes> layout = {};  // KvStorage::layout(), zeros behind it
  uint64_t check = 0;                          // of all before it
};
static_assert(sizeof(Header) == 10 * 8 + kLayoutBytes + 8);

std::span<const std::byte> bytes_of(const Header& header) {
  return std::as_bytes(std::span(&header, 1));
}

uint64_t check_of(const Header& header) {
  return checksum(bytes_of(header).first(offsetof(Header, check)));
}

/// A layout's name as it stands in a header: of one that is too long the end is its checksum.
std::string short_name(const std::string& name) {
  if (name.size() <= kLayoutBytes) return name;
  const std::string check = fmt::format(" {:016x}", checksum(std::as_bytes(std::span(name))));
  return name.substr(0, kLayoutBytes - check.size()) + check;
}

/// What a header must say to be of this owner and pool; tokens aside.
Header header_of(const SequenceOwner& owner, const KvPool& pool) {
  Header h;
  std::copy(kMagic.begin(), kMagic.end(), h.magic.begin());
  h.model = owner.model;
  h.vocab = static_cast<uint64_t>(owner.vocab);
  h.n_layers = static_cast<uint64_t>(pool.shape().n_layers);
  h.n_kv_heads = static_cast<uint64_t>(pool.shape().n_kv_heads);
  h.head_dim = static_cast<uint64_t>(pool.shape().head_dim);
  h.block_tokens = static_cast<uint64_t>(kKvBlockTokens);
  h.block_bytes = static_cast<uint64_t>(pool.storage().block_bytes());
  const std::string layout = short_name(pool.storage().layout());
  std::copy(layout.begin(), layout.end(), h.layout.begin());
  return h;
}

std::string layout_name(const Header& h) {
  std::string name(h.layout.begin(), h.layout.end());
  name.resize(std::strlen(name.c_str()));
  for (char& c : name) c = c >= ' ' && c <= '~' ? c : '?';
  return name;
}

void check_header(const std::string& path, const Header& found, const Header& expected) {
  constexpr auto kBad = ErrorCode::bad_format;
  require(found.magic == expected.magic, kBad, "{}: is no saved session", path);
  require(found.version == kVersion, ErrorCode::unsupported,
          "{}: saved session of version {}, this library reads {}", path, found.version, kVersion);
  require(found.check == check_of(found), kBad, "{}: the header is damaged (checksum)", path);
  constexpr auto kOther = ErrorCode::invalid_argument;
  const auto same = [&](const char* what, uint64_t a, uint64_t b) {
    require(a == b, kOther, "{}: saved with another model: {}: expected {}, found {}", path, what,
            b, a);
  };
  same("vocabulary", found.vocab, expected.vocab);
  same("layers", found.n_layers, expected.n_layers);
  same("KV heads", found.n_kv_heads, expected.n_kv_heads);
  same("head dimension", found.head_dim, expected.head_dim);
  require(found.layout == expected.layout && found.block_tokens == expected.block_tokens &&
              found.block_bytes == expected.block_bytes,
          kOther, "{}: saved with another KV format: expected '{}', found '{}'", path,
          layout_name(expected), layout_name(found));
  require(found.model == expected.model, kOther,
          "{}: saved with another model or scheme: expected the digest {:016x}, found {:016x}",
          path, expected.model, found.model);
}

/// Bytes of a whole file, or 0 where they do not fit.
uint64_t file_bytes(const Header& h) {
  uint64_t bytes = 0;
  if (h.tokens > (uint64_t{1} << 40U)) return 0;
  const uint64_t blocks = (h.tokens + h.block_tokens - 1) / h.block_tokens;
  if (!checked_mul(blocks, h.block_bytes + sizeof(uint64_t), &bytes)) return 0;
  const uint64_t rest = sizeof(Header) + h.tokens * sizeof(int32_t) + sizeof(uint64_t);
  return checked_add(bytes, rest, &bytes) ? bytes : 0;
}

std::span<const std::byte> bytes_of(const uint64_t& value) {
  return std::as_bytes(std::span(&value, 1));
}

void read_checked(InputFile& file, const std::string& path, const std::string& what,
                  std::span<std::byte> out, uint64_t seed) {
  uint64_t check = 0;
  file.read(out);
  file.read(std::as_writable_bytes(std::span(&check, 1)));
  require(check == checksum(out, seed), ErrorCode::bad_format, "{}: {} damaged (checksum)", path,
          what);
}

Header read_header(InputFile& file, const std::string& path, const Header& expected) {
  require(file.size() >= static_cast<int64_t>(sizeof(Header)), ErrorCode::bad_format,
          "{}: is no saved session: {} bytes, a header has {}", path, file.size(), sizeof(Header));
  Header found;
  file.read(std::as_writable_bytes(std::span(&found, 1)));
  check_header(path, found, expected);
  const uint64_t whole = file_bytes(found);
  require(whole != 0 && static_cast<uint64_t>(file.size()) == whole, ErrorCode::bad_format,
          "{}: expected {} bytes for {} tokens, found {}", path, whole, found.tokens, file.size());
  return found;
}

}  // namespace

void save_sequence(const std::string& path, const SequenceOwner& owner, const KvCache& kv) {
  Header header = header_of(owner, kv.pool());
  header.tokens = static_cast<uint64_t>(kv.length());
  header.check = check_of(header);
  NewFile file(path);
  file.write(bytes_of(header));
  const auto tokens = std::as_bytes(kv.tokens());
  file.write(tokens);
  file.write(bytes_of(checksum(tokens, header.check)));
  const KvStorage& storage = kv.pool().storage();
  std::vector<std::byte> block(static_cast<size_t>(storage.block_bytes()));
  const auto used = static_cast<size_t>(ceil_div(kv.length(), kKvBlockTokens));
  for (size_t i = 0; i < used; ++i) {
    storage.read(kv.blocks()[i], block);
    file.write(block);
    // Seeded by place, so that blocks that change places are damage too.
    file.write(bytes_of(checksum(block, header.check + i + 1)));
  }
  file.commit();
}

std::unique_ptr<KvCache> restore_sequence(const std::string& path, const SequenceOwner& owner,
                                          std::shared_ptr<KvPool> pool, int64_t capacity) {
  InputFile file(path);
  const Header header = read_header(file, path, header_of(owner, *pool));
  const auto count = static_cast<int64_t>(header.tokens);
  require(count <= capacity, ErrorCode::context_full,
          "{}: {} tokens do not fit into a context of {}", path, count, capacity);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  read_checked(file, path, "the tokens are", std::as_writable_bytes(std::span(tokens)),
               header.check);
  for (const int32_t token : tokens) {
    require(token >= 0 && token < owner.vocab, ErrorCode::bad_format,
            "{}: token {} is outside the vocabulary of {}", path, token, owner.vocab);
  }
  auto kv = std::make_unique<KvCache>(std::move(pool), capacity);
  kv->restore(tokens);
  KvStorage& storage = kv->pool().storage();
  std::vector<std::byte> block(static_cast<size_t>(storage.block_bytes()));
  for (size_t i = 0; i < kv->blocks().size(); ++i) {
    read_checked(file, path, fmt::format("block {} of {} is", i, kv->blocks().size()), block,
                 header.check + i + 1);
    storage.write(kv->blocks()[i], block);
  }
  return kv;
}

}  // namespace qllm
