# Finds LibTorch and OpenMP.
set(ATTEND_TORCH_MINIMUM 2.13)

# TorchConfig warns of a "kineto" that nothing here needs.
set(log_level ${CMAKE_MESSAGE_LOG_LEVEL})
set(CMAKE_MESSAGE_LOG_LEVEL ERROR)
find_package(Torch QUIET)
set(CMAKE_MESSAGE_LOG_LEVEL ${log_level})
# A project that adds this one as a subdirectory links to what links to these.
get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target ${imported})
  set_property(TARGET ${target} PROPERTY IMPORTED_GLOBAL TRUE)
endforeach()

if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch was not found: pass -DCMAKE_PREFIX_PATH=<its folder>; for a Python torch that is what "
    "`python3 -c 'import torch; print(torch.utils.cmake_prefix_path)'` prints (after ./dev: .venv/bin/python)")
endif()
if(Torch_VERSION VERSION_LESS ATTEND_TORCH_MINIMUM)
  message(FATAL_ERROR "LibTorch ${Torch_VERSION} in ${Torch_DIR} is too old: ${ATTEND_TORCH_MINIMUM} or newer is needed")
endif()
find_package(OpenMP REQUIRED COMPONENTS CXX)

# ATen's parallel_for needs the OpenMP flags: without them it runs serially, silently. As flags, not as the imported
# target: that names the compiler's own runtime, and LibTorch brings one of the same name.
function(attend_openmp target)
  separate_arguments(flags UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  target_compile_options(${target} PRIVATE ${flags})
  target_link_options(${target} PRIVATE ${flags})
endfunction()
