# libqllm from the object libraries of lib/ and backends/: the static and the shared library, and
# what `cmake --install` makes of them (find_package(qllm), pkg-config). See docs/building.md.
include(CMakePackageConfigHelpers)

set(_qllm_objects $<TARGET_OBJECTS:qllm_lib_objects> $<TARGET_OBJECTS:qllm_backend_objects>
  $<TARGET_OBJECTS:qllm_kernels_scalar> $<TARGET_OBJECTS:qllm_kernels_avx2>
  $<TARGET_OBJECTS:qllm_kernels_avxvnni> $<TARGET_OBJECTS:qllm_kernels_avx512vnni>
  $<TARGET_OBJECTS:qllm_kernels_amx>)

add_library(qllm_static STATIC ${_qllm_objects})
add_library(qllm_shared SHARED ${_qllm_objects})
add_library(qllm::static ALIAS qllm_static)
add_library(qllm::qllm ALIAS qllm_shared)
foreach(_t qllm_static qllm_shared)
  set_target_properties(${_t} PROPERTIES OUTPUT_NAME qllm)
  target_include_directories(${_t} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/lib/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${_t} PRIVATE OpenMP::OpenMP_CXX DNNL::dnnl PkgConfig::hwloc PkgConfig::pcre2
    fmt::fmt $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> Threads::Threads)
  target_compile_features(${_t} PUBLIC cxx_std_20)
endforeach()
set_target_properties(qllm_static PROPERTIES EXPORT_NAME static)
set_target_properties(qllm_shared PROPERTIES EXPORT_NAME qllm VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/qllm.map)
target_link_options(qllm_shared PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/qllm.map)

# A oneDNN that is not the system's is installed beside the library, in a folder of its own, so that
# what is installed does not lean on the checkout or on a prefix that may go away.
get_filename_component(_dnnl_prefix "${dnnl_DIR}/../../.." REALPATH)
if(_dnnl_prefix MATCHES "^/usr(/lib)?(/|$)")
  set(_private_onednn OFF)
else()
  set(_private_onednn ON)
endif()
option(QLLM_INSTALL_ONEDNN "install the oneDNN in use into <libdir>/qllm" ${_private_onednn})
set(QLLM_PRIVATE_LIBDIR "${CMAKE_INSTALL_LIBDIR}/qllm")
if(QLLM_INSTALL_ONEDNN)
  install(FILES $<TARGET_FILE:DNNL::dnnl> DESTINATION ${QLLM_PRIVATE_LIBDIR} RENAME libdnnl.so.3)
  install(CODE "file(CREATE_LINK libdnnl.so.3
    \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${QLLM_PRIVATE_LIBDIR}/libdnnl.so\" SYMBOLIC)")
  foreach(_name LICENSE THIRD-PARTY-PROGRAMS)
    if(EXISTS "${_dnnl_prefix}/share/doc/onednn/${_name}")
      install(FILES "${_dnnl_prefix}/share/doc/onednn/${_name}" DESTINATION ${CMAKE_INSTALL_DOCDIR}/onednn)
    endif()
  endforeach()
  file(RELATIVE_PATH _bin_to_private "/${CMAKE_INSTALL_BINDIR}" "/${QLLM_PRIVATE_LIBDIR}")
  set_target_properties(qllm_shared PROPERTIES INSTALL_RPATH "$ORIGIN/qllm")
  set(QLLM_PROGRAM_RPATH "$ORIGIN/${_bin_to_private}")
  set(QLLM_PC_PRIVATE_DIR "-L\${libdir}/qllm -Wl,-rpath,\${libdir}/qllm ")
endif()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/lib/include/qllm DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
set(_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/qllm)
foreach(_kind shared static)
  install(TARGETS qllm_${_kind} EXPORT qllm_${_kind}_targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT qllm_${_kind}_targets NAMESPACE qllm:: FILE qllm-${_kind}-targets.cmake
    DESTINATION ${_cmake_dir})
endforeach()
configure_package_config_file(cmake/qllmConfig.cmake.in ${PROJECT_BINARY_DIR}/qllmConfig.cmake
  INSTALL_DESTINATION ${_cmake_dir} PATH_VARS QLLM_PRIVATE_LIBDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/qllmConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)  # 0.x: the C++ API may change with the minor version
install(FILES ${PROJECT_BINARY_DIR}/qllmConfig.cmake ${PROJECT_BINARY_DIR}/qllmConfigVersion.cmake
  DESTINATION ${_cmake_dir})
# Relative to its own place, so that an installed tree can be moved.
file(RELATIVE_PATH QLLM_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(cmake/qllm.pc.in ${PROJECT_BINARY_DIR}/qllm.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/qllm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
