# What every target of ours is compiled with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
# Where tools/bundle puts the libraries; the old tag holds for libraries that need libraries, too.
set(CMAKE_BUILD_RPATH "\$ORIGIN/../lib")
add_link_options(-Wl,--disable-new-dtags)

find_program(PRISM_CCACHE ccache)
if(PRISM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${PRISM_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PRISM_CCACHE})
endif()

if(PRISM_CUDA)
  # 90a is Hopper with its own instructions; a list such as "80;90a" builds for several.
  set(CMAKE_CUDA_ARCHITECTURES 90a CACHE STRING "What the kernels are compiled for")
  if(PRISM_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${PRISM_CCACHE})
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    # CMake 3.25 does not know that nvcc has had C++20 since 12.0.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  find_package(CUDAToolkit 12.4 REQUIRED)
endif()

add_library(prism_flags INTERFACE)
target_compile_options(prism_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor
    -Wno-missing-field-initializers -Wno-sign-compare -fno-strict-aliasing
    # A multiply and an add become one instruction only where the code says so:
    # the order and rounding of a sum must not hang on the optimiser.
    -ffp-contract=off>)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(prism_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety>)
else()
  # GCC 12 sees overlaps in std::string's operator+ that are not there (bug 105651).
  target_compile_options(prism_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(PRISM_WERROR)
  target_compile_options(prism_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
# Kernels say themselves where a multiply and an add
# are one instruction.
target_compile_options(prism_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-Wno-sign-compare,-Wno-missing-field-initializers>)
if(PRISM_WERROR)
  target_compile_options(prism_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Werror all-warnings>")
endif()
if(PRISM_CUDA AND NOT CMAKE_CUDA_ARCHITECTURES STREQUAL "90a")
  # Kernels of Hopper's instructions have no body on other devices; what only they use is used by none there.
  target_compile_options(prism_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--diag-suppress=177>)
endif()
target_include_directories(prism_flags INTERFACE ${CMAKE_SOURCE_DIR})

if(PRISM_SANITIZE)
  add_compile_options(-fsanitize=${PRISM_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${PRISM_SANITIZE})
endif()
# prism_fuzz_coverage(): what this folder and those below build guides the fuzz targets. Not for
# kernels/ and tests/, which no fuzz target runs and whose loops it makes twice as slow.
macro(prism_fuzz_coverage)
  if(PRISM_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
  endif()
endmacro()
