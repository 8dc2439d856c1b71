# Sets the floating-point model of a target, whatever a surrounding project puts into CMAKE_CXX_FLAGS. With -ffast-math,
# masks, which are infinities, and compensated sums would not work.
function(attend_floating_point target)
  target_compile_options(${target} PRIVATE -fno-fast-math -fno-unsafe-math-optimizations -fno-associative-math
    -fno-reciprocal-math -fno-finite-math-only -fsigned-zeros -fmath-errno)
  target_link_options(${target} PRIVATE -fno-fast-math -fno-unsafe-math-optimizations)
endfunction()

# Sets the options of every target of this project. Warnings are enabled only if this is the top-level project.
function(attend_compile_options target)
  attend_floating_point(${target})
  if(PROJECT_IS_TOP_LEVEL)
    # In C++, GCC's -Wconversion does not imply -Wsign-conversion, while clang's does.
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
  endif()
  target_compile_options(${target} PRIVATE $<$<BOOL:${ATTEND_WARNINGS_AS_ERRORS}>:-Werror>)
  if(ATTEND_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${ATTEND_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${ATTEND_SANITIZE})
  endif()
endfunction()

# LibTorch's headers are the largest cost of a build. All libraries and programs share one precompiled header of them,
# and so must be compiled with the same options, apart from the level of optimisation and warnings.
function(attend_precompiled_torch)
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/precompiled.cpp CONTENT "")  # written only if it does not exist
  add_library(attend_precompiled OBJECT ${PROJECT_BINARY_DIR}/precompiled.cpp)
  target_link_libraries(attend_precompiled PRIVATE torch)
  target_compile_features(attend_precompiled PRIVATE cxx_std_20)
  attend_precompiled_options(attend_precompiled)
  target_precompile_headers(attend_precompiled PRIVATE <torch/torch.h>)
endfunction()

function(attend_precompiled_options target)
  attend_openmp(${target})
  attend_compile_options(${target})
  target_compile_options(${target} PRIVATE -fPIC)
  set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  if(NOT target STREQUAL attend_precompiled)
    target_precompile_headers(${target} REUSE_FROM attend_precompiled)
  endif()
endfunction()

# With CMAKE_UNITY_BUILD, the sources of each folder are compiled as one, since most of the time of a small source is that
# of reading LibTorch's headers.
function(attend_unity_groups target)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "^src/")
  foreach(source IN LISTS sources)
    get_filename_component(folder ${source} DIRECTORY)
    string(MAKE_C_IDENTIFIER ${folder} group)
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
  endforeach()
endfunction()

# Sets the properties that all shared libraries of this project have.
function(attend_shared_library target)
  set(beside "$ORIGIN")
  if(APPLE)
    set(beside "@loader_path")
  endif()
  set_target_properties(${target} PROPERTIES
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    DEFINE_SYMBOL ""
    UNITY_BUILD_MODE GROUP
    INSTALL_RPATH "${beside}")
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  attend_unity_groups(${target})
  attend_precompiled_options(${target})
endfunction()

# Adds a program that uses the library: an example, a test or a benchmark. Most of its time is spent in the library,
# which is optimised, so that the program itself need not be.
function(attend_program target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE attend::attend fmt::fmt-header-only CLI11::CLI11)
  attend_precompiled_options(${target})
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()
