// One factory per op; each lives in a file of its name.
#pragma once

#include <memory>

#include "kernels/attend.h"
#include "kernels/dot.h"
#include "onednn/onednn_tiles.h"
#include "ops/attention_schedule.h"
#include "ops/step.h"

namespace qllm::cpu {

/// Rows split over workers; gain may be null. Exactly one of `out` and `quantized` may be without
/// data.
std::unique_ptr<Step> make_rms_norm(const VecKernels& vec, const FloatBuffer& in, const float* gain,
                                    float eps, const FloatBuffer& out, const QuantBuffer& quantized,
                                    Scratch& scratch);

std::unique_ptr<Step> make_quantize(const VecKernels& vec, const FloatBuffer& in,
                                    const QuantBuffer& out);

struct LinearStepArgs {
  const VecKernels* vec = nullptr;
  Isa isa = Isa::scalar;
  const ShardedLinear* weights = nullptr;
  const float* bias = nullptr;  // padded to a multiple of 64, or null
  QuantBuffer in;
  FloatBuffer residual;  // data may be null
  FloatBuffer out;
  const SwiGluOp* swiglu = nullptr;  // not null: out receives swiglu of the linear's columns
  bool meets = true;                 // false: what follows reads only the worker's own columns
  int64_t max_rows = 1;
  OnednnTiles* onednn = nullptr;  // null: own kernels for all token counts
};
/// Each worker computes the outputs of its shard for all rows, in tiles whose sums stay in L2 until
/// the epilogue. With `swiglu`, gate and up live only in such a tile.
std::unique_ptr<Step> make_linear(const LinearStepArgs& args, Scratch& scratch);

/// cos and sin of every token's angles, shared by all layers: [max_tokens, rotary_dim/2] each.
struct RopeTable {
  std::vector<float> inv_freq;
  std::vector<float> cos;
  std::vector<float> sin;
};
std::unique_ptr<Step> make_rope_table(RopeTable* table);
/// With `shards` of the QKV weight each worker takes the heads of its own columns (they must end on
/// heads), else heads go to workers evenly.
std::unique_ptr<Step> make_rope_kv_write(const VecKernels& vec, const RopeKvWriteOp& op,
                                         const RopeTable* table, const FloatBuffer& qkv,
                                         const FloatBuffer& q, const ShardedLinear* shards,
                                         Scratch& scratch);

/// Shared by all layers of equal groups and windows; must stand before them.
AttentionShape attention_shape(const AttentionOp& op);

std::unique_ptr<Step> make_attention_schedule(AttentionSchedule* schedule, int workers);
/// Heads, tokens and blocks go to workers as the schedule says.
std::unique_ptr<Step> make_attention(const AttendTable& table, const AttentionOp& op,
                                     const AttentionSchedule* schedule, const FloatBuffer& q,
                                     const FloatBuffer& out, Scratch& scratch);

/// For a gate_up that is stored: where more than one op reads it.
std::unique_ptr<Step> make_swiglu(const VecKernels& vec, const SwiGluOp& op,
                                  const FloatBuffer& gate_up, const FloatBuffer& out);

std::unique_ptr<Step> make_select_rows(const FloatBuffer& in, const FloatBuffer& out);

}  // namespace qllm::cpu
