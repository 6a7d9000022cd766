# What the tests of a sanitized build run with.
#
# PRISM_TEST_SLOWDOWN          time limits of tests are multiplied by this
# PRISM_TEST_ENVIRONMENT       the environment of a test
# PRISM_TEST_ENVIRONMENT_GRPC  of one that runs gRPC, in itself or in the programs it starts
# PRISM_KERNEL_DEFINITIONS     of kernels/cpu and its tests
set(PRISM_TEST_SLOWDOWN 1)
set(PRISM_TEST_ENVIRONMENT "")
set(PRISM_KERNEL_DEFINITIONS "")
if(PRISM_SANITIZE)
  set(PRISM_TEST_SLOWDOWN 10)
  # A sanitizer looks at the source, which all instruction sets share: the narrowest and the widest do
  # for it, and what takes longest to build takes half as long.
  set(PRISM_KERNEL_DEFINITIONS "HWY_BROKEN_TARGETS=(HWY_SSE4|HWY_AVX2)")
endif()
list(APPEND PRISM_TEST_ENVIRONMENT "PRISM_TEST_SLOWDOWN=${PRISM_TEST_SLOWDOWN}")
set(PRISM_TEST_ENVIRONMENT_GRPC ${PRISM_TEST_ENVIRONMENT})

if(PRISM_SANITIZE MATCHES address)
  set(options
    "ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1"
    "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/lsan_suppressions.txt:print_suppressions=0"
    "UBSAN_OPTIONS=print_stacktrace=1")
  list(APPEND PRISM_TEST_ENVIRONMENT ${options})
  list(APPEND PRISM_TEST_ENVIRONMENT_GRPC ${options})
endif()

# Debian's gRPC is not instrumented: ThreadSanitizer does not see what orders its threads. Tests
# without it get no suppressions.
if(PRISM_SANITIZE MATCHES thread)
  list(APPEND PRISM_TEST_ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:history_size=4")
  list(APPEND PRISM_TEST_ENVIRONMENT_GRPC
    "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan_suppressions.txt:ignore_noninstrumented_modules=1:history_size=4")
endif()
