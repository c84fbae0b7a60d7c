# Packages come from the distribution; scripts/setup installs what is missing (third_party/README.md).
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
# scripts/setup unpacks xsimd here where the distribution's is older than 8.
find_package(xsimd REQUIRED HINTS "${CMAKE_SOURCE_DIR}/.deps/xsimd")
if(xsimd_VERSION VERSION_LESS 8)  # not asked above: xsimd's own check takes no later major version
  message(FATAL_ERROR "xsimd 8 or newer is needed, found ${xsimd_VERSION} in ${xsimd_DIR}. Run scripts/setup.")
endif()
find_package(PkgConfig REQUIRED)
pkg_check_modules(hwloc REQUIRED IMPORTED_TARGET hwloc>=2.4)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)

# oneDNN: an own one first, then the distribution's, then the pinned prebuilt one of scripts/setup.
if(QLLM_ONEDNN_ROOT)
  find_package(dnnl 3.2 CONFIG REQUIRED PATHS "${QLLM_ONEDNN_ROOT}" NO_DEFAULT_PATH)
else()
  find_package(dnnl 3.2 CONFIG QUIET)
  if(NOT dnnl_FOUND)
    find_package(dnnl 3.2 CONFIG QUIET PATHS "${CMAKE_SOURCE_DIR}/.deps/onednn" NO_DEFAULT_PATH)
  endif()
  if(NOT dnnl_FOUND)
    message(FATAL_ERROR "oneDNN 3.2 or newer was not found. Run scripts/setup, or give "
                        "-DQLLM_ONEDNN_ROOT=<prefix with lib/cmake/dnnl>.")
  endif()
endif()
message(STATUS "oneDNN ${dnnl_VERSION} in ${dnnl_DIR}")
