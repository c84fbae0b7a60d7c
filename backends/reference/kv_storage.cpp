#include <algorithm>
#include <cstring>
#include <new>

#include "core/error.h"
#include "core/math.h"
#include "reference/ops.h"

namespace qllm::reference {
namespace {

int64_t block_floats(const KvShape& s) {
  uint64_t floats = 2;
  for (const int64_t factor : {s.n_layers, s.n_kv_heads, s.head_dim, kKvBlockTokens}) {
    require(factor > 0 && checked_mul(floats, static_cast<uint64_t>(factor), &floats) &&
                floats < (uint64_t{1} << 60U),
            ErrorCode::invalid_argument, "KV cache: {} layers x {} heads x {} is no size",
            s.n_layers, s.n_kv_heads, s.head_dim);
  }
  return static_cast<int64_t>(floats);
}

}  // namespace

FloatKvStorage::FloatKvStorage(const KvShape& shape, KvRounding rounding, int64_t blocks)
    : width_(shape.n_kv_heads * shape.head_dim), size_(block_floats(shape)), rounding_(rounding) {
  blocks_.resize(static_cast<size_t>(blocks));
}

std::string FloatKvStorage::layout() const {
  constexpr const char* kNames[] = {"float32", "float32 as bf16", "float32 as int8",
                                    "float32 as f16"};
  return std::string("reference 1 ") + kNames[static_cast<size_t>(rounding_)];
}

void FloatKvStorage::open(int32_t block, bool fresh) {
  auto& memory = blocks_[static_cast<size_t>(block)];
  if (!fresh && memory) {
    std::fill(memory.get(), memory.get() + size_, 0.0F);
    return;
  }
  try {
    memory = std::make_unique<float[]>(static_cast<size_t>(size_));
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, "KV cache: no memory for a block of {} bytes", block_bytes());
  }
}

void FloatKvStorage::copy(int32_t from, int32_t to) noexcept {
  std::copy(at(from), at(from) + size_, at(to));
}

void FloatKvStorage::read(int32_t block, std::span<std::byte> out) const noexcept {
  std::memcpy(out.data(), at(block), static_cast<size_t>(block_bytes()));
}

void FloatKvStorage::write(int32_t block, std::span<const std::byte> in) noexcept {
  std::memcpy(at(block), in.data(), static_cast<size_t>(block_bytes()));
}

}  // namespace qllm::reference
