// One model on two devices, cut between layers.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace qllm::hybrid {

/// The last options.gpu_layers layers (-1: as many as fit into the device's free memory) and the LM
/// head go to `device`, the others and the embedding to `host`. All of them: nothing goes to the
/// host; none: nothing to the device. Both were made with `options`.
std::unique_ptr<Backend> make_backend(std::unique_ptr<Backend> host,
                                      std::unique_ptr<Backend> device,
                                      const BackendOptions& options);

}  // namespace qllm::hybrid
