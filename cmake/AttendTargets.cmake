# What every target of this project is built with.
function(attend_compile_options target)
  attend_openmp(${target})
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
    $<$<BOOL:${ATTEND_WARNINGS_AS_ERRORS}>:-Werror>)
  if(ATTEND_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${ATTEND_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${ATTEND_SANITIZE})
  endif()
endfunction()

# With CMAKE_UNITY_BUILD, the sources of a folder are compiled as one where the headers of LibTorch that they read take
# most of the time. Sources of other folders repeat names that are their own.
function(attend_unity_groups target)
  get_target_property(sources ${target} SOURCES)
  foreach(folder autograd models nn ops)
    set(group ${sources})
    list(FILTER group INCLUDE REGEX "^src/${folder}/")
    set_source_files_properties(${group} PROPERTIES UNITY_GROUP ${folder})
  endforeach()
endfunction()

# What a library of this project has in common with the others.
function(attend_shared_library target)
  set_target_properties(${target} PROPERTIES
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    UNITY_BUILD_MODE GROUP
    INSTALL_RPATH "$ORIGIN")
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  attend_unity_groups(${target})
  attend_compile_options(${target})
endfunction()

# LibTorch's headers are the cost of a build: programs share one precompiled header. They must be compiled with the
# same options, so each links the same things. CLI11 is not in it: what it defines is compiled wherever it is seen.
function(attend_precompiled_torch)
  file(WRITE ${PROJECT_BINARY_DIR}/precompiled.cpp "int main() { return 0; }\n")
  attend_program(attend_precompiled ${PROJECT_BINARY_DIR}/precompiled.cpp)
  target_precompile_headers(attend_precompiled PRIVATE <torch/torch.h> <fmt/ranges.h>)
endfunction()

# A program that uses the library: an example, a test or a benchmark.
function(attend_program target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE attend::attend fmt::fmt-header-only CLI11::CLI11)
  attend_compile_options(${target})
  if(NOT target STREQUAL attend_precompiled)
    target_precompile_headers(${target} REUSE_FROM attend_precompiled)
  endif()
endfunction()
