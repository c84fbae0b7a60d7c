# libqllm from the object libraries of lib/ and backends/.
set(_qllm_objects $<TARGET_OBJECTS:qllm_lib_objects> $<TARGET_OBJECTS:qllm_backend_objects>
  $<TARGET_OBJECTS:qllm_kernels_scalar> $<TARGET_OBJECTS:qllm_kernels_avx2>
  $<TARGET_OBJECTS:qllm_kernels_avxvnni> $<TARGET_OBJECTS:qllm_kernels_avx512vnni>)

add_library(qllm_static STATIC ${_qllm_objects})
add_library(qllm_shared SHARED ${_qllm_objects})
foreach(_t qllm_static qllm_shared)
  set_target_properties(${_t} PROPERTIES OUTPUT_NAME qllm)
  target_include_directories(${_t} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/lib/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${_t} PRIVATE OpenMP::OpenMP_CXX DNNL::dnnl PkgConfig::hwloc PkgConfig::pcre2
    fmt::fmt nlohmann_json::nlohmann_json Threads::Threads)
  target_compile_features(${_t} PUBLIC cxx_std_20)
endforeach()
set_target_properties(qllm_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
