// Packed copies of GGUF models in a folder, so that the next open maps instead of quantizing.
#pragma once

#include <memory>
#include <string>

#include "engine/loaded_model.h"
#include "qllm/qllm.hpp"

namespace qllm {

/// The model out of its packed copy in options.cache_folder, which is made first where it is
/// missing or damaged. Null where there is no folder, the device packs nothing, or no copy can be
/// made (a line to the log says why): then open the file itself. Throws what the file or the
/// options are to blame for, and cancelled.
std::shared_ptr<ModelImpl> open_cached(const std::string& path, const OpenOptions& options);

}  // namespace qllm
