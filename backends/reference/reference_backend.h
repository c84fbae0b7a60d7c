// The oracle: every op as plain loops, in fp32 or with exact integer sums. Slow, always built.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace qllm::reference {

/// Numerics fp32: float32 weights, activations and KV. Numerics w8a8: weights and activations of
/// each linear quantized by quant/int8.h, sums exact; all else float32.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace qllm::reference
