// What kernels read of a step: which token belongs to which sequence, and where its blocks of keys
// and values lie. The plan writes it to the device before each step, at addresses that stay.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qllm::cuda {

/// One sequence's tokens of a step.
struct DeviceSlice {
  int32_t first = 0;        // its first token in the step
  int32_t count = 0;        // tokens in the step
  int32_t length = 0;       // tokens held before it
  int32_t first_block = 0;  // where its blocks begin in StepTables::blocks
};

/// Device pointers.
struct StepTables {
  const DeviceSlice* slices = nullptr;   // [slices]
  const int32_t* slice_of = nullptr;     // [tokens]
  const int32_t* position = nullptr;     // [tokens]: in its sequence
  std::byte* const* blocks = nullptr;    // where the blocks of all slices lie, slice by slice
  const int32_t* output_rows = nullptr;  // [outputs]: ascending tokens
};

/// Rows of float32 on the device; `ld` floats apart, a multiple of 64, of which `width` are used.
struct FloatRows {
  float* data = nullptr;
  int64_t ld = 0;
  int64_t width = 0;
};

/// Rows of int8 activations on the device: x ~ scale * q. `ld` codes apart, a multiple of 64; those
/// past the width are 0.
struct QuantRows {
  int8_t* q = nullptr;
  float* scale = nullptr;  // [rows], in groups [rows, ld / group]
  int32_t* sum = nullptr;  // in groups: [rows, ld / group], the sum of a group's codes
  int64_t ld = 0;
  int64_t group = 0;  // values that share a scale; 0: the whole row
};

}  // namespace qllm::cuda
