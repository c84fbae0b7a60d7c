// Hyper-parameters from the metadata of a GGUF file, and the check of its tensors against them.
#pragma once

#include "model/config.h"
#include "model/gguf.h"

namespace qllm {

/// Reads the keys of architecture "llama" and validates them. Throws unsupported for another
/// architecture, rope scaling other than linear, or experts; bad_format naming key or tensor.
ModelConfig config_from_gguf(const GgufFile& file);

/// Throws bad_format for a missing tensor or one of another shape ("expected [a, b], found [c,
/// d]"), unsupported for a tensor that the architecture as built here would leave unread.
void check_tensors(const GgufFile& file, const ModelConfig& config);

/// The same of the image in a packed file, which lacks the matrices that only linears read.
void check_unpacked_tensors(const GgufFile& file, const ModelConfig& config);

}  // namespace qllm
