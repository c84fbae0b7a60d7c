// What the test of the AMX kernels asks the tiles that they ran on.
#include "kernels/amx/tiles.h"

namespace qllm::test {

/// A kernel of this thread left its configuration loaded.
bool emulated_tiles_in_use() { return cpu::amx::tiles.loaded; }

}  // namespace qllm::test
