// Attention of a step: tiles of the slices of several tokens, and those of one token in splits.
#pragma once

#include <map>
#include <vector>

#include "backend/backend.h"
#include "cuda_device.h"
#include "kernels/attention_shape.h"
#include "kernels/kv_layout.h"
#include "step_tables.h"

namespace qllm::cuda {

class AttentionStep {
 public:
  /// `all_kv_heads`: those of the model where `graph` has a part of them, else 0. Splits are as
  /// many as one device would take for all, since sums depend on their number.
  AttentionStep(const Graph& graph, const PlanLimits& limits, int multiprocessors,
                int64_t all_kv_heads = 0);

  /// Sends the tiles of a batch off and makes room for its splits. True where memory moved, which
  /// captured graphs may hold.
  bool prepare(const Batch& batch, const KvGeometry& kv, const Stream& stream);
  /// Launches one op of the prepared batch.
  void run(const AttentionOp& op, const FloatRows& q, const FloatRows& out,
           const StepTables& tables, const Stream& stream) const;

  /// Of the prepared batch: every slice has one token.
  bool only_decode() const { return n_single_ == n_slices_; }
  /// The longest that a sequence of the batch may become, rounded up to a power of two: what the
  /// number of splits depends on.
  int64_t max_length() const { return max_length_; }

 private:
  /// The tiles of ops with so many query heads a KV head.
  struct Tiles {
    PinnedBuffer host;
    DeviceBuffer device;
    int64_t count = 0;
  };
  AttentionShape shape_of(const AttentionOp& op) const;
  int splits_of(AttentionShape shape) const;
  void send_tiles(int heads_of_kv, const std::vector<DeviceSlice>& slices, const Stream& stream);
  bool reserve_workspace();

  std::vector<AttentionOp> ops_;  // one of each kind
  int multiprocessors_;
  int64_t all_kv_heads_;  // 0: as many as the graph has
  KvGeometry kv_;
  int64_t n_slices_ = 0;
  int64_t n_single_ = 0;  // slices of one token
  int64_t max_length_ = 0;
  std::map<int, Tiles> tiles_;
  DeviceBuffer workspace_;
};

}  // namespace qllm::cuda
