# Finds LibTorch and OpenMP.
set(ATTEND_TORCH_MINIMUM 2.13)

find_package(Torch QUIET)
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch was not found: pass -DCMAKE_PREFIX_PATH=<its folder>; for a Python torch that is what "
    "`python3 -c 'import torch; print(torch.utils.cmake_prefix_path)'` prints (after ./dev: .venv/bin/python)")
endif()
if(DEFINED kineto_LIBRARY AND NOT kineto_LIBRARY)
  message(NOTICE "attend: LibTorch's warning that kineto was not found is harmless")
endif()
if(Torch_VERSION VERSION_LESS ATTEND_TORCH_MINIMUM)
  message(FATAL_ERROR "LibTorch ${Torch_VERSION} in ${Torch_DIR} is too old: ${ATTEND_TORCH_MINIMUM} or newer is needed")
endif()
# A surrounding project links to attend, and thereby to LibTorch's targets, which must therefore be visible there.
get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target ${imported})
  set_property(TARGET ${target} PROPERTY IMPORTED_GLOBAL TRUE)
endforeach()
find_package(OpenMP REQUIRED COMPONENTS CXX)

# ATen's parallel_for needs the OpenMP flags, without which it runs serially and gives no warning. They are passed as
# flags, not as the imported target, which links to the compiler's own runtime: LibTorch brings a runtime of the same
# name.
function(attend_openmp target)
  separate_arguments(flags UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  target_compile_options(${target} PRIVATE ${flags})
  target_link_options(${target} PRIVATE ${flags})
endfunction()
