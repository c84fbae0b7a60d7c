#include "step_upload.h"

#include <algorithm>
#include <cstring>

#include "core/math.h"

namespace qllm::cuda {

TableLayout table_layout(int64_t tokens, int64_t outputs, int64_t blocks) {
  constexpr int64_t kAlign = 16;
  TableLayout at;
  int64_t next = 0;
  const auto take = [&](int64_t count, int64_t size) {
    const int64_t begin = next;
    next = round_up(begin + count * size, kAlign);
    return begin;
  };
  at.slices = take(tokens, sizeof(DeviceSlice));
  at.slice_of = take(tokens, sizeof(int32_t));
  at.position = take(tokens, sizeof(int32_t));
  at.output_rows = take(outputs, sizeof(int32_t));
  at.blocks = take(blocks, sizeof(std::byte*));  // last: its length varies
  at.bytes = next;
  return at;
}

std::vector<DeviceSlice> device_slices(const Batch& batch) {
  std::vector<DeviceSlice> out;
  int64_t block = 0;
  for (const BatchSlice& s : batch.slices) {
    const int64_t length = s.kv->length();
    out.push_back({static_cast<int32_t>(s.first), static_cast<int32_t>(s.count),
                   static_cast<int32_t>(length), static_cast<int32_t>(block)});
    block += ceil_div(length + s.count, kKvBlockTokens);
  }
  return out;
}

StepUpload::StepUpload(const PlanLimits& limits) : limits_(limits) { reserve(0); }

int64_t StepUpload::block_count(const BatchSlice& slice) {
  return ceil_div(slice.kv->length() + slice.count, kKvBlockTokens);
}

bool StepUpload::reserve(int64_t blocks) {
  if (blocks <= room_) return false;
  constexpr int64_t kLeast = 1024;
  room_ = std::max({kLeast, blocks, 2 * room_});
  layout_ = table_layout(limits_.max_tokens, std::max<int64_t>(limits_.max_outputs, 1), room_);
  host_ = PinnedBuffer(layout_.bytes);
  device_ = DeviceBuffer(layout_.bytes, "tables of a step");
  const std::byte* at = device_.data();
  tables_.slices = reinterpret_cast<const DeviceSlice*>(at + layout_.slices);
  tables_.slice_of = reinterpret_cast<const int32_t*>(at + layout_.slice_of);
  tables_.position = reinterpret_cast<const int32_t*>(at + layout_.position);
  tables_.output_rows = reinterpret_cast<const int32_t*>(at + layout_.output_rows);
  tables_.blocks = reinterpret_cast<std::byte* const*>(at + layout_.blocks);
  return true;
}

void StepUpload::fill(const Batch& batch) {
  std::memset(host_.data(), 0, static_cast<size_t>(layout_.blocks));
  std::copy(slices_.begin(), slices_.end(), host_table<DeviceSlice>(layout_.slices));
  auto* const slice_of = host_table<int32_t>(layout_.slice_of);
  auto* const position = host_table<int32_t>(layout_.position);
  for (size_t s = 0; s < slices_.size(); ++s) {
    for (int32_t i = 0; i < slices_[s].count; ++i) {
      slice_of[slices_[s].first + i] = static_cast<int32_t>(s);
      position[slices_[s].first + i] = slices_[s].length + i;
    }
  }
  std::copy(batch.outputs.begin(), batch.outputs.end(), host_table<int32_t>(layout_.output_rows));
}

}  // namespace qllm::cuda
