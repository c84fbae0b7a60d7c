# What every target is compiled with. Nothing outside backends/cpu/kernels/<tier> is compiled above
# x86-64-v2, so that the library starts on any 64-bit PC and says plainly what it found.
add_library(qllm_compile_options INTERFACE)
target_compile_options(qllm_compile_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -march=x86-64-v2>
  $<$<BOOL:${QLLM_WERROR}>:-Werror>)
if(QLLM_SANITIZE)
  set(_san -fsanitize=${QLLM_SANITIZE} -fno-omit-frame-pointer)
  if(QLLM_SANITIZE MATCHES "undefined")
    list(APPEND _san -fno-sanitize-recover=undefined)
  endif()
  add_compile_options(${_san})
  add_link_options(${_san})
endif()
if(QLLM_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()
