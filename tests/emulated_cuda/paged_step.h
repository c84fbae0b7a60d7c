// A step over several sequences whose keys and values lie in blocks of an emulated device, for
// tests of the kernels that write and read them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "cuda_host/device_memory.h"
#include "cuda_kv_storage.h"
#include "quant/float_bits.h"
#include "step_tables.h"

namespace qllm::test {

/// Tokens that a sequence holds, and tokens of the step.
struct TestSlice {
  int64_t length = 0;
  int64_t count = 0;
};

class PagedStep {
 public:
  PagedStep(const KvShape& shape, KvFormat format, const std::vector<TestSlice>& of)
      : storage(shape, format, blocks_of(of), 0, nullptr) {
    int32_t block = static_cast<int32_t>(blocks_of(of));
    for (const TestSlice& s : of) {
      cuda::DeviceSlice slice;
      slice.first = static_cast<int32_t>(slice_of.size());
      slice.count = static_cast<int32_t>(s.count);
      slice.length = static_cast<int32_t>(s.length);
      slice.first_block = static_cast<int32_t>(blocks.size());
      for (int64_t t = 0; t < s.count; ++t) {
        slice_of.push_back(static_cast<int32_t>(slices.size()));
        position.push_back(static_cast<int32_t>(s.length + t));
      }
      // Blocks lie in no order.
      for (int64_t t = 0; t < s.length + s.count; t += kKvBlockTokens) {
        storage.open(--block, true);
        blocks.push_back(storage.address(block));
      }
      slices.push_back(slice);
    }
    upload();
  }
  int64_t n_tokens() const { return static_cast<int64_t>(slice_of.size()); }

  /// The head that holds a token of a sequence.
  std::byte* head(size_t slice, int64_t layer, int64_t kv_head, int64_t token) const {
    const auto block = static_cast<size_t>(slices[slice].first_block + token / kKvBlockTokens);
    return blocks[block] + storage.geometry().head_offset(layer, kv_head);
  }
  /// A key's or value's element as it is stored.
  float element(size_t slice, int64_t layer, int64_t kv_head, int64_t token, int64_t d,
                bool value) const {
    const cuda::KvGeometry& g = storage.geometry();
    const std::byte* at = head(slice, layer, kv_head, token);
    const int t = static_cast<int>(token % kKvBlockTokens);
    const int i = static_cast<int>(d);
    const std::byte* p = at + (value ? g.v_offset(t, i) : g.k_offset(t, i));
    if (g.is_int8()) return static_cast<float>(static_cast<int8_t>(*p)) * scale(at, t, value);
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return g.format == KvFormat::f16 ? half_to_float(bits) : bfloat_to_float(bits);
  }
  float scale(const std::byte* head, int t, bool value) const {
    float s;
    std::memcpy(&s, head + storage.geometry().scale_offset(t, value), sizeof s);
    return s;
  }

  /// Fills all tokens of all blocks, those beyond a sequence's end too, with numbers whose size
  /// differs from token to token.
  void fill(uint64_t seed) {
    const cuda::KvGeometry& g = storage.geometry();
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    for (std::byte* block : blocks) {
      for (int64_t h = 0; h < int64_t{g.n_layers} * g.n_kv_heads; ++h) {
        for (int t = 0; t < kKvBlockTokens; ++t)
          fill_token(block + h * g.head_bytes(), t, normal, random);
      }
    }
  }

  cuda::CudaKvStorage storage;
  std::vector<cuda::DeviceSlice> slices;
  std::vector<int32_t> slice_of, position;
  std::vector<std::byte*> blocks;
  cuda::StepTables tables;

 private:
  static int64_t blocks_of(const std::vector<TestSlice>& of) {
    int64_t n = 0;
    for (const TestSlice& s : of) n += (s.length + s.count + kKvBlockTokens - 1) / kKvBlockTokens;
    return n;
  }

  void upload() {
    slices_on_device_ = std::make_unique<DeviceMemory<cuda::DeviceSlice>>(slices);
    slice_of_on_device_ = std::make_unique<DeviceMemory<int32_t>>(slice_of);
    position_on_device_ = std::make_unique<DeviceMemory<int32_t>>(position);
    blocks_on_device_ = std::make_unique<DeviceMemory<std::byte*>>(blocks);
    tables.slices = slices_on_device_->data();
    tables.slice_of = slice_of_on_device_->data();
    tables.position = position_on_device_->data();
    tables.blocks = blocks_on_device_->data();
  }

  void fill_token(std::byte* head, int t, std::normal_distribution<float>& normal,
                  std::mt19937_64& random) const {
    const cuda::KvGeometry& g = storage.geometry();
    for (const bool value : {false, true}) {
      const float size = std::exp(normal(random));
      if (g.is_int8()) {
        const float s = size / 50;
        std::memcpy(head + g.scale_offset(t, value), &s, sizeof s);
      }
      for (int d = 0; d < g.head_dim; ++d) {
        std::byte* p = head + (value ? g.v_offset(t, d) : g.k_offset(t, d));
        if (g.is_int8()) {
          const auto q = static_cast<int8_t>(std::clamp(normal(random) * 50, -127.0F, 127.0F));
          std::memcpy(p, &q, 1);
        } else {
          const float x = size * normal(random);
          const uint16_t bits = g.format == KvFormat::f16 ? float_to_half(x) : float_to_bfloat(x);
          std::memcpy(p, &bits, sizeof bits);
        }
      }
    }
  }

  std::unique_ptr<DeviceMemory<cuda::DeviceSlice>> slices_on_device_;
  std::unique_ptr<DeviceMemory<int32_t>> slice_of_on_device_, position_on_device_;
  std::unique_ptr<DeviceMemory<std::byte*>> blocks_on_device_;
};

}  // namespace qllm::test
