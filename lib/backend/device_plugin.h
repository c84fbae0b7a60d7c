// A backend that a library brings at run time, so that one program serves machines with a device
// and without: libqllm_cuda.so is one. The library is built together with the program: what crosses
// is C++, and both sides compare what they were built from before anything else.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "backend/backend.h"

namespace qllm {

/// The name of the one function that such a library exports.
inline constexpr const char* kDevicePluginEntry = "qllm_device_plugin";

/// What it returns; static storage of the library.
struct DevicePlugin {
  /// Of the program and of the library: equal, or they must not meet.
  const char* build = nullptr;
  /// Makes the backend; throws qllm::Error, unsupported where the device or its driver is missing.
  Backend* (*make)(const BackendOptions& options) = nullptr;
};
using DevicePluginEntry = const DevicePlugin* (*)();

/// Version, compiler and the sizes of what crosses: "0.1.0 12.2.0 …".
const char* device_plugin_build();

/// Loads the library that brings `device`: `libqllm_<device>.so` at the path in the variable
/// QLLM_<DEVICE>_PLUGIN if that is set, else beside the program or library that this is part of,
/// else where the system looks. Throws unsupported where there is none or it is of another build.
/// It stays loaded.
const DevicePlugin& load_device_plugin(std::string_view device);

}  // namespace qllm
