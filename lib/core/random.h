// A generator whose numbers are the same on every machine and with every standard library.
#pragma once

#include <cstdint>

namespace qllm {

/// One step of SplitMix64 (Steele et al., OOPSLA 2014).
inline uint64_t split_mix(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15ULL);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

/// Uniform in [-1, 1), a multiple of 2^-52.
inline double split_mix_uniform(uint64_t* state) {
  return static_cast<double>(static_cast<int64_t>(split_mix(state)) >> 11) * 0x1p-52;
}

}  // namespace qllm
