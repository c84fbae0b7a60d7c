// The oracle: every op as plain loops, in fp32 or with exact integer sums. Slow, always built.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace qllm::reference {

/// Scheme fp32: float32 weights, activations and KV. int8: weights and activations of each linear
/// quantized by quant/int8.h. int4 and keep: by quant/group_quant.h, or as the file has them.
/// Integer sums are exact, those of groups added up in double; all else float32.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace qllm::reference
