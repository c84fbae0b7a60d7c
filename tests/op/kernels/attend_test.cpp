// Attention against double precision over the values that the cache holds, on every tier of the
// machine and, emulated, on those that it lacks.
#include "kernels/attend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/math.h"
#include "kv_layout.h"
#include "ops/attention_memory.h"
#include "placed_memory.h"
#include "quant/float_bits.h"

#ifdef QLLM_EMULATED_KERNELS
namespace qllm::cpu {
namespace avx2_emulated {
const AttendTable& attend_table() noexcept;
}
namespace avxvnni_emulated {
const AttendTable& attend_table() noexcept;
}
namespace avx512vnni_emulated {
const AttendTable& attend_table() noexcept;
}
namespace amx_emulated {
const AttendKernels& attend_bf16() noexcept;
const AttendKernels& attend_int8() noexcept;
}  // namespace amx_emulated
}  // namespace qllm::cpu
namespace qllm::test {
bool emulated_tiles_in_use();
}
#endif

using namespace qllm;       // NOLINT
using namespace qllm::cpu;  // NOLINT

namespace {

constexpr double kU = 0x1p-24;

struct Tier {
  std::string name;
  AttendTable table;
  bool two_terms = false;  // in bf16: coefficients are parted into two
};

/// All tiers, the machine's own first; `emulated`: those in software too.
std::vector<Tier> find_tiers(bool emulated) {
  std::vector<Tier> out;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512vnni, Isa::amx}) {
    if (isa_available(isa)) {
      const bool two_terms = isa == Isa::amx && amx_bf16_available();
      out.push_back({std::string(isa_name(isa)), attend_table(isa), two_terms});
    } else if (!emulated) {
      MESSAGE("[skipped] tier " << isa_name(isa) << " is not on this machine");
    }
  }
  if (!emulated) return out;
#ifdef QLLM_EMULATED_KERNELS
  out.push_back({"avx2 emulated", avx2_emulated::attend_table()});
  out.push_back({"avxvnni emulated", avxvnni_emulated::attend_table()});
  out.push_back({"avx512vnni emulated", avx512vnni_emulated::attend_table()});
  out.push_back({"amx emulated", {amx_emulated::attend_bf16(), amx_emulated::attend_int8()}, true});
#else
  MESSAGE("[skipped] emulated tiers: no SIMDe");
#endif
  return out;
}

/// What is skipped is said once.
const std::vector<Tier>& tiers(bool emulated) {
  static const std::vector<Tier> native = find_tiers(false);
  static const std::vector<Tier> all = find_tiers(true);
  return emulated ? all : native;
}

struct Case {
  int64_t head_dim = 64;
  int64_t group = 1;
  int64_t position = 0;  // tokens before the slice
  int64_t count = 1;     // tokens of the slice
  int64_t window = 0;
  float softcap = 0.0F;
  float sigma = 1.0F;  // of q: 30 gives nearly all weight to one token
  int64_t pieces = 1;  // that the blocks are parted into, then merged
  int64_t length() const { return position + count; }
};

/// A sequence's keys and values, as made and as the cache holds them.
struct Cache {
  KvFormat format;
  int64_t head_dim;
  std::vector<std::vector<std::byte>> blocks;

  Cache(KvFormat format_in, const Case& c, std::mt19937& random)
      : format(format_in), head_dim(c.head_dim) {
    const VecKernels& vec = vec_kernels(Isa::scalar);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(head_dim));
    for (int64_t t = 0; t < c.length(); ++t) {
      if (t % 64 == 0) add_block();
      std::byte* head = blocks.back().data();
      for (float& v : x) v = normal(random);
      write_kv_key(vec, format, head_dim, x.data(), t % 64, head);
      for (float& v : x) v = normal(random) * static_cast<float>(1 + t % 3);
      write_kv_value(vec, format, head_dim, x.data(), t % 64, head);
    }
    for (int64_t t = c.length(); t % 64 != 0; ++t) write_broken(vec, t);
  }

  /// What a sequence that was cut off may have left behind its end: no numbers, large ones.
  void write_broken(const VecKernels& vec, int64_t t) {
    constexpr float kNone[] = {std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(), 1e38F};
    std::vector<float> x(static_cast<size_t>(head_dim));
    for (size_t d = 0; d < x.size(); ++d) x[d] = kNone[(static_cast<size_t>(t) + d) % 4];
    std::byte* head = blocks.back().data();
    write_kv_key(vec, format, head_dim, x.data(), t % 64, head);
    write_kv_value(vec, format, head_dim, x.data(), t % 64, head);
    if (format == KvFormat::bf16) return;
    std::memcpy(head + kv_scale_offset(head_dim, t % 64, false), kNone, 4);
  }

  /// Numbers, large ones.
  void add_block() {
    blocks.emplace_back(static_cast<size_t>(kv_head_bytes(format, head_dim)), std::byte{0x71});
  }

  const std::byte* block(int64_t token) const {
    return blocks[static_cast<size_t>(token / 64)].data();
  }
  double scale(int64_t token, bool value) const {
    if (format == KvFormat::bf16) return 1.0;
    float s = 0;
    std::memcpy(&s, block(token) + kv_scale_offset(head_dim, token % 64, value), 4);
    return s;
  }
  /// Without the scale.
  double stored(int64_t token, int64_t d, bool value) const {
    const int64_t at = value ? kv_v_offset(format, head_dim, token % 64, d)
                             : kv_k_offset(format, head_dim, token % 64, d);
    if (format == KvFormat::int8) return static_cast<int8_t>(block(token)[at]);
    uint16_t bits = 0;
    std::memcpy(&bits, block(token) + at, 2);
    return bfloat_to_float(bits);
  }
};

/// What one row should be, and how far a kernel may be off at each element.
struct Expected {
  std::vector<double> out;
  std::vector<double> bound;
};

/// Errors, u = 2^-24, n tokens seen in B blocks:
/// Kernels work with scores times log2(e) and powers of two; relative to 1 / log2(e) it is the
/// same.
/// * A score in bf16: log2(e) is rounded, the scale times it, q times that, a sum of head_dim
///   products rounds head_dim + 1 times its absolute sum. In int8 q moves by at most 0.51 steps of
///   max |q| / 32767 (half a step and three roundings of at most 32767), then the exact sum is
///   rounded and scaled twice: 7u.
/// * A soft cap has slope at most 1, and errs by cap (2^-20 + 44u) itself.
/// * score - maximum of the block rounds once, u times the range. What brings it to the last
/// maximum
///   is a product of one exponential and a factor for each later block: their arguments' roundings
///   together are at most u times the range again. Each exponential errs by 2^-20, so does the
///   weight itself, and all of it also in the sum that divides: 2 (B + 2) 2^-20.
/// * Sums of n weights and of n products: 2n roundings, a few for each block.
/// * Two terms (AMX-BF16): what they leave of a coefficient is at most 2^-9 of a 2^-9 of it; twice
///   as many products are summed; the first terms are at most 1 + 2^-9 of it, the second 2^-9.
/// * int8: a weight of v moves by at most 0.51 steps of a 32767th of what it would be if the
///   block's largest weight met the largest scale of its tokens.
Expected expect(const Case& c, const Cache& cache, const float* q, int64_t token, float scale,
                bool two_terms) {
  const int64_t last = c.position + token;
  const int64_t first = c.window > 0 ? std::max<int64_t>(0, last + 1 - c.window) : 0;
  const bool int8 = cache.format == KvFormat::int8;
  const double terms = two_terms && !int8 ? 2 * (1 + 0x1p-7) : 1.0;  // products for each
  const double lost = two_terms && !int8 ? 0x1p-18 : 0.0;
  double q_max = 0;
  for (int64_t d = 0; d < c.head_dim; ++d) q_max = std::max(q_max, std::fabs(double{q[d]}) * scale);
  std::vector<double> s;
  double delta = 0, top = -1e300, low = 1e300;
  for (int64_t j = first; j <= last; ++j) {
    double dot = 0, size = 0, keys = 0;
    for (int64_t d = 0; d < c.head_dim; ++d) {
      const double k = cache.stored(j, d, false) * cache.scale(j, false);
      dot += double{q[d]} * scale * k;
      size += std::fabs(double{q[d]} * scale * k);
      keys += std::fabs(k);
    }
    delta = std::max(delta,
                     int8 ? 0.51 * q_max / 32767 * keys + 7 * kU * size
                          : (terms * static_cast<double>(c.head_dim) * kU + 5 * kU + lost) * size);
    if (c.softcap > 0) dot = c.softcap * std::tanh(dot / c.softcap);
    s.push_back(dot);
    top = std::max(top, dot), low = std::min(low, dot);
  }
  if (c.softcap > 0) delta += c.softcap * (0x1p-20 + 44 * kU);
  double sum = 0;
  for (double& x : s) sum += x = std::exp(x - top);
  const auto n = static_cast<double>(s.size());
  const auto blocks = static_cast<double>(last / 64 - first / 64 + 1 + c.pieces);
  const double eta = std::expm1(2 * (2 * delta + 2 * kU * (top - low + 2 * delta))) +
                     2 * (blocks + 2) * 0x1p-20 + ((1 + terms) * n + 6 * blocks + 12) * kU + lost;
  Expected e;
  for (int64_t d = 0; d < c.head_dim; ++d) {
    double out = 0, size = 0, extra = 0;
    for (int64_t j = first; j <= last;) {
      double largest = 0, scales = 0, values = 0;
      for (int64_t i = j / 64 * 64; i < std::min(c.length(), j / 64 * 64 + 64); ++i) {
        scales = std::max(scales, cache.scale(i, true));
      }
      for (const int64_t block = j / 64; j <= last && j / 64 == block; ++j) {
        const double p = s[static_cast<size_t>(j - first)] / sum;
        const double v = cache.stored(j, d, true);
        const double weight = p * cache.scale(j, true);
        out += weight * v, size += std::fabs(weight * v);
        largest = std::max(largest, p), values += std::fabs(v);
      }
      if (int8) extra += 0.51 / 32767 * largest * scales * values;
    }
    e.out.push_back(out);
    e.bound.push_back(eta * size + (1 + eta) * extra);
  }
  return e;
}

/// Runs a case in tiles and pieces as a step would.
void run(const AttendKernels& kernels, const Case& c, const Cache& cache,
         const std::vector<float>& q, float scale, std::vector<float>* out,
         int64_t tile_rows = kAttendRows) {
  const int64_t rows = c.count * c.group;
  const AttentionShape shape{c.head_dim, c.group, 1};
  const int64_t room = AttentionMemory::bytes(shape);
  const PlacedBuffer buffer(static_cast<size_t>(c.pieces * round_up(room, 64)), {});
  std::vector<AttentionMemory> memory;
  for (int64_t i = 0; i < c.pieces; ++i) {
    memory.emplace_back(buffer.as<std::byte>() + i * round_up(room, 64), shape);
  }
  const int64_t tiles = ceil_div(rows, tile_rows);
  for (int64_t n = 0; n < tiles; ++n) {  // of nearly equal size
    const int64_t row = rows * n / tiles;
    AttendTile tile;
    tile.q = q.data();
    tile.out = out->data();
    tile.ldq = tile.ldout = c.group * c.head_dim;
    tile.group = c.group;
    tile.row0 = row;
    tile.rows = rows * (n + 1) / tiles - row;
    tile.head_dim = c.head_dim;
    tile.position = c.position;
    tile.window = c.window;
    tile.scale = scale;
    tile.softcap = c.softcap;
    const auto blocks = static_cast<int64_t>(cache.blocks.size());
    for (int64_t i = 0; i < c.pieces; ++i) {
      memory[static_cast<size_t>(i)].place(0, 0, &tile);
      kernels.begin(tile);
      const int64_t end = blocks * (i + 1) / c.pieces;
      for (int64_t b = blocks * i / c.pieces; b < end; ++b) {
        const std::byte* next = b + 1 < end ? cache.block((b + 1) * 64) : nullptr;
        kernels.block(tile, cache.block(b * 64), next, b * 64);
      }
    }
    memory[0].place(0, 0, &tile);
    for (size_t i = 1; i < memory.size(); ++i) {
      AttendTile theirs = tile;
      memory[i].place(0, 0, &theirs);
      kernels.merge(tile, theirs.partial);
    }
    kernels.finish(tile);
  }
}

void check(const Case& c, bool emulated = false) {
  CAPTURE(c.head_dim);
  CAPTURE(c.group);
  CAPTURE(c.position);
  CAPTURE(c.count);
  CAPTURE(c.window);
  CAPTURE(c.softcap);
  CAPTURE(c.pieces);
  const float scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
    const bool int8 = format == KvFormat::int8;
    CAPTURE(int8);
    std::mt19937 random(static_cast<uint32_t>(c.head_dim * 1000 + c.length()));
    const Cache cache(format, c, random);
    std::normal_distribution<float> normal(0.0F, c.sigma);
    std::vector<float> q(static_cast<size_t>(c.count * c.group * c.head_dim));
    for (float& x : q) x = normal(random);
    std::vector<Expected> expected[2];  // [two_terms]
    for (const Tier& tier : tiers(emulated)) {
      CAPTURE(tier.name);
      std::vector<Expected>& rows = expected[tier.two_terms ? 1 : 0];
      for (auto r = static_cast<int64_t>(rows.size()); r < c.count * c.group; ++r) {
        rows.push_back(
            expect(c, cache, q.data() + r * c.head_dim, r / c.group, scale, tier.two_terms));
      }
      std::vector<float> out(q.size() + 1, 77.0F);
      run(int8 ? tier.table.int8 : tier.table.bf16, c, cache, q, scale, &out);
      double worst = 0;  // off by more than the bound: by how much
      for (size_t r = 0; r < rows.size(); ++r) {
        for (size_t d = 0; d < static_cast<size_t>(c.head_dim); ++d) {
          const double got = out[r * static_cast<size_t>(c.head_dim) + d];
          const double off = std::fabs(got - rows[r].out[d]);
          if (off <= rows[r].bound[d]) continue;
          worst = std::isnan(off) ? HUGE_VAL : std::max(worst, off / rows[r].bound[d]);
        }
      }
      CHECK(worst <= 1.0);
      CHECK(out.back() == 77.0F);
    }
  }
}

}  // namespace

// So that the logits of a prompt do not depend on the steps that it is cut into.
TEST_CASE("attend: what a row finds depends on no other row of its tile, bit for bit") {
  for (const Case& c : {Case{.head_dim = 32, .group = 3, .position = 40, .count = 60},
                        Case{.head_dim = 80, .group = 2, .position = 3, .count = 130},
                        Case{.head_dim = 64, .position = 100, .count = 70, .window = 37},
                        Case{.head_dim = 64, .group = 5, .count = 70, .softcap = 2.0F}}) {
    CAPTURE(c.head_dim);
    for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
      std::mt19937 random(7);
      const Cache cache(format, c, random);
      std::normal_distribution<float> normal(0.0F, 3.0F);
      std::vector<float> q(static_cast<size_t>(c.count * c.group * c.head_dim));
      for (float& x : q) x = normal(random);
      for (const Tier& tier : tiers(true)) {
        CAPTURE(tier.name);
        const AttendKernels& kernels = format == KvFormat::int8 ? tier.table.int8 : tier.table.bf16;
        std::vector<float> expected(q.size()), out(q.size());
        run(kernels, c, cache, q, 0.125F, &expected);
        for (const int64_t rows : {1, 7, 12, 19}) {
          if (tier.two_terms && format == KvFormat::bf16 && rows < 9) continue;  // no tiles
          run(kernels, c, cache, q, 0.125F, &out, rows);
          CHECK(out == expected);
        }
      }
    }
  }
}

TEST_CASE("attend: amx has tiles for int8, and for bf16 where the machine has AMX-BF16") {
  CHECK((!amx_bf16_available() || isa_available(Isa::amx)));
  const AttendTable& tiles = attend_table(Isa::amx);
  const AttendTable& vectors = attend_table(Isa::avx512vnni);
  CHECK((tiles.int8.block != vectors.int8.block));
  CHECK((tiles.bf16.block != vectors.bf16.block) == amx_bf16_available());
}

#ifdef QLLM_EMULATED_KERNELS
TEST_CASE("attend: int8 on AMX is AVX-512's bit for bit") {
  for (const int64_t head_dim : {13, 32, 48, 64, 80, 96, 112, 128, 256}) {
    for (const int64_t count : {1, 3, 9, 16, 17, 31, 32}) {
      const Case c = {.head_dim = head_dim, .position = 90, .count = count};
      std::mt19937 random(3);
      const Cache cache(KvFormat::int8, c, random);
      std::normal_distribution<float> normal(0.0F, 3.0F);
      std::vector<float> q(static_cast<size_t>(count * head_dim));
      for (float& x : q) x = normal(random);
      std::vector<float> expected(q.size()), out(q.size());
      run(avx512vnni_emulated::attend_table().int8, c, cache, q, 0.125F, &expected);
      run(amx_emulated::attend_int8(), c, cache, q, 0.125F, &out);
      CAPTURE(head_dim);
      CAPTURE(count);
      CHECK(out == expected);
      CHECK_FALSE(test::emulated_tiles_in_use());
    }
  }
}
#endif

TEST_CASE("attend: all head sizes, decode and prefill, equal double within the derived bound") {
  std::vector<int64_t> head_dims = {8, 13, 24, 33, 57, 101, 255, 512};
  for (int64_t head_dim = 32; head_dim <= 256; head_dim += 8) head_dims.push_back(head_dim);
  for (const int64_t head_dim : head_dims) {
    check({.head_dim = head_dim, .group = 3, .position = 130, .count = 1});
    check({.head_dim = head_dim, .group = 2, .position = 50, .count = 20});
  }
}

TEST_CASE("attend: groups of 1 to 16 query heads, and more rows than a tile") {
  for (int64_t group = 1; group <= 16; ++group) {
    check({.head_dim = 64, .group = group, .position = 90, .count = 1});
    check({.head_dim = 32, .group = group, .position = 60, .count = 7});
  }
  check({.head_dim = 32, .group = 40, .position = 70, .count = 3});
}

TEST_CASE("attend: lengths across the borders of blocks, units and lines") {
  for (const int64_t length :
       {1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 65, 66, 127, 128, 129, 300}) {
    check({.head_dim = 64, .group = 4, .position = length - 1, .count = 1});
    check({.head_dim = 64, .group = 1, .position = length - 1, .count = 70});
  }
}

TEST_CASE("attend: windows see their tokens only") {
  for (const int64_t window : {1, 2, 3, 5, 16, 63, 64, 65, 100, 1000}) {
    check({.head_dim = 64, .group = 4, .position = 200, .count = 1, .window = window});
    check({.head_dim = 32, .group = 3, .position = 40, .count = 100, .window = window});
  }
}

TEST_CASE("attend: soft caps") {
  for (const float softcap : {1.0F, 20.0F, 50.0F}) {
    for (const float sigma : {1.0F, 30.0F, 300.0F}) {
      check({.head_dim = 64, .group = 4, .position = 150, .softcap = softcap, .sigma = sigma});
      check({.head_dim = 96,
             .group = 2,
             .position = 30,
             .count = 40,
             .window = 33,
             .softcap = softcap,
             .sigma = sigma});
    }
  }
}

TEST_CASE("attend: parted over workers and merged") {
  for (const int64_t pieces : {2, 3, 7}) {
    check({.head_dim = 64, .group = 4, .position = 500, .pieces = pieces});
    check({.head_dim = 64, .group = 4, .position = 250, .count = 50, .pieces = pieces});
    // Pieces that see nothing: the window has left their blocks behind.
    check({.head_dim = 64, .group = 4, .position = 500, .window = 70, .pieces = pieces});
  }
}

TEST_CASE("attend: scores that let one token take all, or overflow a naive exponential") {
  for (const float sigma : {0.0F, 1e-3F, 30.0F, 1000.0F}) {
    check({.head_dim = 128, .group = 4, .position = 200, .sigma = sigma});
    check({.head_dim = 64, .group = 2, .position = 100, .count = 30, .sigma = sigma, .pieces = 2});
  }
}

TEST_CASE("attend: emulated tiers") {
  for (const int64_t head_dim : {13, 32, 48, 64, 80, 96, 112, 128, 160, 256}) {
    check({.head_dim = head_dim, .group = 3, .position = 70, .pieces = 2}, true);
    check({.head_dim = head_dim, .group = 2, .position = 50, .count = 17}, true);
  }
  for (int64_t group = 1; group <= 16; ++group) {
    check({.head_dim = 64, .group = group, .position = 100}, true);
    check({.head_dim = 32, .group = group, .position = 61, .count = 4}, true);
  }
  for (const int64_t window : {1, 33, 64, 100}) {
    check({.head_dim = 64, .group = 3, .position = 40, .count = 40, .window = window}, true);
  }
  check({.head_dim = 64, .group = 4, .position = 40, .count = 30, .window = 50, .softcap = 30.0F},
        true);
  for (const float sigma : {0.0F, 30.0F, 1000.0F}) {
    check({.head_dim = 64, .group = 2, .position = 70, .count = 20, .sigma = sigma}, true);
  }
}
