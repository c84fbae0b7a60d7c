#include "attention_step.h"

#include <algorithm>
#include <bit>

#include "kernels/attention_decode.h"
#include "kernels/attention_prefill.h"
#include "step_upload.h"

namespace qllm::cuda {
namespace {

bool same_kind(const AttentionOp& a, const AttentionOp& b) {
  return a.n_heads == b.n_heads && a.n_kv_heads == b.n_kv_heads && a.window == b.window;
}

}  // namespace

AttentionStep::AttentionStep(const Graph& graph, const PlanLimits& limits, int multiprocessors,
                             int64_t all_kv_heads)
    : multiprocessors_(multiprocessors), all_kv_heads_(all_kv_heads) {
  for (const Op& op : graph.ops) {
    const auto* attention = std::get_if<AttentionOp>(&op);
    if (attention == nullptr) continue;
    const auto same = [&](const AttentionOp& known) { return same_kind(known, *attention); };
    if (std::none_of(ops_.begin(), ops_.end(), same)) ops_.push_back(*attention);
  }
  for (const AttentionOp& op : ops_) {
    const int heads = op.n_heads / op.n_kv_heads;
    Tiles& tiles = tiles_[heads];
    if (tiles.host.data() != nullptr) continue;
    const int64_t most = max_attention_tiles(limits.max_tokens, limits.max_tokens, heads);
    const int64_t bytes = most * static_cast<int64_t>(sizeof(AttentionTile));
    tiles.host = PinnedBuffer(bytes);
    tiles.device = DeviceBuffer(bytes, "tiles of attention");
  }
}

AttentionShape AttentionStep::shape_of(const AttentionOp& op) const {
  AttentionShape shape;
  shape.kv = kv_;
  shape.layer = op.layer;
  shape.n_heads = op.n_heads;
  shape.scale = op.scale;
  shape.window = static_cast<int32_t>(op.window);
  shape.softcap = op.softcap;
  return shape;
}

int AttentionStep::splits_of(AttentionShape shape) const {
  if (all_kv_heads_ != 0) {
    const auto heads = static_cast<int32_t>(all_kv_heads_);
    shape.n_heads = shape.heads_of_kv() * heads;
    shape.kv.n_kv_heads = heads;
  }
  return decode_splits(shape, n_slices_, max_length_, multiprocessors_);
}

void AttentionStep::send_tiles(int heads_of_kv, const std::vector<DeviceSlice>& slices,
                               const Stream& stream) {
  Tiles& tiles = tiles_[heads_of_kv];
  const std::vector<AttentionTile> made = attention_tiles(slices, heads_of_kv);
  tiles.count = static_cast<int64_t>(made.size());
  std::copy(made.begin(), made.end(), tiles.host.as<AttentionTile>());
  copy_to_device(tiles.device.data(), tiles.host.data(),
                 tiles.count * static_cast<int64_t>(sizeof(AttentionTile)), stream);
}

bool AttentionStep::reserve_workspace() {
  int64_t bytes = 0;
  for (const AttentionOp& op : ops_) {
    const AttentionShape shape = shape_of(op);
    const int splits = splits_of(shape);
    bytes = std::max(bytes, decode_workspace_bytes(shape, n_slices_, splits));
  }
  if (bytes <= workspace_.bytes()) return false;
  workspace_ = DeviceBuffer(bytes, "splits of attention");
  return true;
}

bool AttentionStep::prepare(const Batch& batch, const KvGeometry& kv, const Stream& stream) {
  kv_ = kv;
  const std::vector<DeviceSlice> slices = device_slices(batch);
  n_slices_ = static_cast<int64_t>(slices.size());
  n_single_ = std::count_if(slices.begin(), slices.end(),
                            [](const DeviceSlice& slice) { return slice.count == 1; });
  max_length_ = 0;
  for (const BatchSlice& slice : batch.slices) {
    max_length_ = std::max(max_length_, slice.kv->capacity());
  }
  // Few different ones: a captured graph is kept for each.
  max_length_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(max_length_)));
  for (auto& [heads, tiles] : tiles_) send_tiles(heads, slices, stream);
  return n_single_ > 0 && reserve_workspace();
}

void AttentionStep::run(const AttentionOp& op, const FloatRows& q, const FloatRows& out,
                        const StepTables& tables, const Stream& stream) const {
  const AttentionShape shape = shape_of(op);
  const Tiles& tiles = tiles_.at(shape.heads_of_kv());
  if (tiles.count > 0) {
    attention_prefill(shape, q, out, tables, tiles.device.as<AttentionTile>(), tiles.count,
                      stream.get());
  }
  if (n_single_ == 0) return;
  const int splits = splits_of(shape);
  attention_decode(shape, q, out, tables, n_slices_, splits, workspace_.as<float>(), stream.get());
}

}  // namespace qllm::cuda
