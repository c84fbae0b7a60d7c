// One linear quantized and packed by all workers, handed out block by block.
#pragma once

#include "backend/backend.h"
#include "backend/packed_linear.h"
#include "kernels/vec.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Backend::pack.
void pack_linear(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
                 const VecKernels& vec, WorkerPool& pool, const Backend::PackFn& take);

}  // namespace qllm::cpu
