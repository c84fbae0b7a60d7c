#include "backend/device_plugin.h"

#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/error.h"

namespace qllm {
namespace {

std::string upper(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return out;
}

/// The folder of the program or shared library that this code is in; empty: not known.
std::string own_folder() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&device_plugin_build), &info) == 0) return {};
  const std::string path = info.dli_fname != nullptr ? info.dli_fname : "";
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
}

/// Where to look, in order; the last is looked up by the system.
std::vector<std::string> places(std::string_view device) {
  const std::string file = fmt::format("libqllm_{}.so", device);
  const char* named = std::getenv(fmt::format("QLLM_{}_PLUGIN", upper(device)).c_str());
  if (named != nullptr && *named != '\0') return {named};
  std::vector<std::string> out;
  const std::string folder = own_folder();
  // Of a program in bin/ its libraries are in lib/ (and QLLM_LIBDIR may be lib64 or a triplet).
  if (!folder.empty()) out = {folder + file, folder + "../" QLLM_LIBDIR "/" + file};
  out.push_back(file);
  return out;
}

}  // namespace

const DevicePlugin& load_device_plugin(std::string_view device) {
  std::string why;
  for (const std::string& path : places(device)) {
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      why = dlerror();
      continue;
    }
    const auto entry = reinterpret_cast<DevicePluginEntry>(dlsym(library, kDevicePluginEntry));
    require(entry != nullptr, ErrorCode::unsupported, "device {}: {} is no library of this kind",
            device, path);
    const DevicePlugin* plugin = entry();
    require(std::string_view(plugin->build) == device_plugin_build(), ErrorCode::unsupported,
            "device {}: {} is of another build ({}; this is {})", device, path, plugin->build,
            device_plugin_build());
    return *plugin;
  }
  fail(ErrorCode::unsupported, "device {}: its library cannot be loaded: {}", device, why);
}

const char* device_plugin_build() {
  static const std::string build =
      fmt::format("{} {} {} {} {}", QLLM_VERSION, __VERSION__, sizeof(BackendOptions),
                  sizeof(Batch), sizeof(Graph));
  return build.c_str();
}

}  // namespace qllm
