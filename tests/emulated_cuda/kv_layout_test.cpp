// How keys and values lie on the device: the arithmetic alone.
#include "kernels/kv_layout.h"

#include <doctest/doctest.h>

#include <vector>

#include "cuda_kv_storage.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

constexpr KvFormat kFormats[] = {KvFormat::bf16, KvFormat::int8, KvFormat::f16};

void mark(std::vector<int>& bytes, int64_t first, int64_t count) {
  for (int64_t i = first; i < first + count; ++i) ++bytes.at(static_cast<size_t>(i));
}

}  // namespace

TEST_CASE("cuda kv layout: elements and scales cover a block exactly once") {
  for (const KvFormat format : kFormats) {
    for (const int32_t head_dim : {16, 24, 64, 80, 128}) {
      const KvGeometry g{format, 2, 3, head_dim};
      std::vector<int> bytes(static_cast<size_t>(g.block_bytes()));
      for (int64_t layer = 0; layer < 2; ++layer) {
        for (int64_t h = 0; h < 3; ++h) {
          const int64_t head = g.head_offset(layer, h);
          for (int t = 0; t < 64; ++t) {
            for (int d = 0; d < g.padded(); ++d) {
              mark(bytes, head + g.k_offset(t, d), g.element_bytes());
              mark(bytes, head + g.v_offset(t, d), g.element_bytes());
            }
            if (!g.is_int8()) continue;
            mark(bytes, head + g.scale_offset(t, false), 4);
            mark(bytes, head + g.scale_offset(t, true), 4);
          }
        }
      }
      int64_t wrong = 0;
      for (const int n : bytes) wrong += n != 1 ? 1 : 0;
      CHECK(wrong == 0);
      CHECK(g.head_bytes() % 512 == 0);
    }
  }
}

TEST_CASE("cuda kv layout: a lane's bytes of a tile are its operands of two products") {
  // mma .m16n8k16 with g = lane / 4, t = lane % 4: b[0] holds rows 2t, 2t + 1 of column g, b[1]
  // rows 8 + 2t, 9 + 2t. Columns of K are tokens; its rows, over which scores sum, are elements in
  // an order that the query shares: lane t has 4t..4t + 3. Rows of V are tokens, columns elements.
  for (const KvFormat format : kFormats) {
    const KvGeometry g{format, 1, 1, 32};
    const int e = g.element_bytes();
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, quad = lane % 4;
      for (int product = 0; product < 2; ++product) {
        for (int i = 0; i < 4; ++i) {
          const int at = lane * 8 * e + product * 4 * e + i * e;
          CHECK(g.k_offset(row + 8 * product, 4 * quad + i) == at);
          CHECK(g.v_offset(2 * quad + i % 2 + i / 2 * 8, row + 8 * product) - g.part_bytes() == at);
        }
      }
    }
    CHECK(g.k_offset(0, 16) == g.tile_bytes());
    CHECK(g.k_offset(16, 0) == 2 * g.tile_bytes());
  }
}

TEST_CASE("cuda kv layout: slabs hold 64 MiB or what is left") {
  CHECK(kv_slab_blocks(1 << 20, 1000) == 64);
  CHECK(kv_slab_blocks(1 << 20, 10) == 10);
  CHECK(kv_slab_blocks(int64_t{100} << 20, 10) == 1);
}
