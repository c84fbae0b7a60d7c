// How a model's weights and activations are stored: what --scheme names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "quant/group.h"

namespace qllm {

enum class SchemeKind : uint8_t {
  fp32,  ///< float32 (reference backend only)
  int8,  ///< weights per output channel, activations per token
  int4,  ///< weights and activations per group; the LM head int8
  keep,  ///< on the grid of the file where it has one, else int8 in groups of 32
};

struct Scheme {
  SchemeKind kind = SchemeKind::int8;
  int group = 128;      // int4 only: 32, 64 or 128
  bool has_min = true;  // int4 only: with minimum, or symmetric
  friend bool operator==(const Scheme&, const Scheme&) = default;
};

/// "fp32", "int8", "int4-g32", "int4-g64", "int4-g128" (with minimum), the same with "-sym"
/// (symmetric), "keep". Throws invalid_argument, naming what there is.
Scheme parse_scheme(std::string_view name);
std::string to_string(const Scheme& scheme);

/// How 64 outputs of a linear are stored. row_int8 with two terms: w ~ s0 q0 + s1 q1, q1 the codes
/// of w - s0 q0 (quant/int8.h), so that two int8 products make one output.
struct WeightFormat {
  enum class Kind : uint8_t { f32, row_int8, groups };
  Kind kind = Kind::row_int8;
  GroupFormat groups;  // where kind is groups
  int8_t terms = 1;    // 1 or 2; more than 1 only where kind is row_int8
  friend bool operator==(const WeightFormat&, const WeightFormat&) = default;
};

}  // namespace qllm
