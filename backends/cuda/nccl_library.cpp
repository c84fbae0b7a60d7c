#include "nccl_library.h"

#include <dlfcn.h>

#include <optional>

namespace qllm::cuda {
namespace {

template <class F>
bool find(void* library, const char* name, F* function) {
  *function = reinterpret_cast<F>(dlsym(library, name));
  return *function != nullptr;
}

std::optional<NcclLibrary> open_library() {
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::nullopt;
  NcclLibrary nccl;
  const bool whole = find(library, "ncclCommInitAll", &nccl.init_all) &&
                     find(library, "ncclCommDestroy", &nccl.destroy) &&
                     find(library, "ncclAllGather", &nccl.all_gather) &&
                     find(library, "ncclGroupStart", &nccl.group_start) &&
                     find(library, "ncclGroupEnd", &nccl.group_end) &&
                     find(library, "ncclGetErrorString", &nccl.error_string);
  if (whole) return nccl;
  dlclose(library);
  return std::nullopt;
}

}  // namespace

const NcclLibrary* load_nccl() {
  static const std::optional<NcclLibrary> library = open_library();
  return library ? &*library : nullptr;
}

}  // namespace qllm::cuda
