// What a model is, in 64 bits: so that what one left in a file is not taken up by another.
#pragma once

#include <cstdint>
#include <string>

#include "backend/backend.h"
#include "graph/graph.h"
#include "model/rotation.h"

namespace qllm {

/// Of the ops with their constants, a sample of each weight (its first and last row and one
/// between) and `form`, a line on what was made of them. Not of the kernel tier or the number of
/// threads, whose results agree. Reads little, but from all over the file.
uint64_t model_digest(const Graph& graph, const std::string& form, const TensorSource& source);

/// That line.
std::string digest_form(const Scheme& scheme, const Rotations& rotations);

}  // namespace qllm
