// What `qllm bench` measures, and one measurement of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "options.h"
#include "report.h"

namespace qllm::app {

struct BenchLengths {
  int64_t prompt = 512;  // tokens of prefill
  int64_t gen = 64;      // steps of decode
  int64_t depth = 0;     // tokens in the cache before either
  int64_t batch = 1;     // sequences that decode together
  int repeat = 5;
};

/// Of one part of a model that two devices share.
struct BenchPart {
  double gbps = 0;
  double ceiling_gbps = 0;
};

/// Figures of one repeat.
struct BenchSample {
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;  // of all sequences together
  double decode_gbps = 0;
  double ceiling_gbps = 0;
  double prefill_tops = 0;       // 1e12 operations a second in the linears of all tokens
  double peak_tops = 0;          // from registers
  std::vector<BenchPart> parts;  // as ModelInfo::parts
};

/// All that was measured with one number of workers.
struct BenchRow {
  int threads = 0;
  double load_s = 0;
  std::string memory;          // where the weights lie: ModelInfo::memory
  int64_t peak_rss_bytes = 0;  // loading and a warm-up
  double bytes_per_step = 0;
  PlacementInfo placement;
  std::vector<ModelPart> parts;  // of a model that two devices share
  std::vector<double> part_bytes_per_step;
  std::vector<BenchSample> samples;

  Spread spread(double BenchSample::*figure) const;
  /// Of each repeat's own ceiling.
  Spread percent_of_ceiling() const;
  Spread percent_of_peak() const;
  Spread part_spread(size_t part, double BenchPart::*figure) const;
  /// Of each part's own ceiling.
  Spread percent_of_ceiling(size_t part) const;
};

/// Ids of the generator's sequence `seed`: which they are does not change the work.
std::vector<int32_t> fixed_ids(int64_t count, int64_t vocab, uint64_t seed = 1);

/// Measures `model`; one warm-up goes before. Throws Error, Interrupted.
BenchRow measure(const Model& model, const BenchLengths& lengths, ProgressBar& bar);

/// "d_model=2048,n_layers=4": the rest as in SyntheticShape. Throws UsageError, or Error
/// (unsupported) for experts.
SyntheticShape parse_shape(const std::string& text);

/// The most memory this process has held since reset_peak_rss(), or so far.
int64_t peak_rss_bytes();
void reset_peak_rss();

}  // namespace qllm::app
