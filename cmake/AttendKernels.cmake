# Adds a kernel source to a target once for each of the instruction sets that the processor family has, by default
# default, avx2 and avx512; at run time the best that the processor has is picked. ATTEND_KERNELS names what the source
# defines: NAME_default, NAME_avx2, NAME_avx512.
function(attend_kernels target source name)
  set(isas ${ARGN})
  if(NOT isas)
    set(isas default avx2 avx512)
  endif()
  set(flags_default "")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(flags_avx2 -mavx2 -mfma -mf16c)
    set(flags_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512)
    set(flags_avx512_bf16 ${flags_avx512} -mavx512bf16)
    target_compile_definitions(${target} PRIVATE ATTEND_X86)
  else()
    list(FILTER isas INCLUDE REGEX default)
  endif()
  foreach(isa IN LISTS isas)
    set(object ${name}_${isa})
    add_library(${object} OBJECT ${source})
    # Always optimised: an inline function that is not inlined could be linked in for another instruction set.
    target_compile_options(${object} PRIVATE -O3 ${flags_${isa}} -Wall -Wextra -Wpedantic -Wshadow -Wconversion
      $<$<BOOL:${ATTEND_WARNINGS_AS_ERRORS}>:-Werror>)
    target_compile_definitions(${object} PRIVATE ATTEND_KERNELS=${object})
    target_compile_features(${object} PRIVATE cxx_std_20)
    target_include_directories(${object} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    set_target_properties(${object} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
    if(ATTEND_SANITIZE)
      target_compile_options(${object} PRIVATE -fsanitize=${ATTEND_SANITIZE} -fno-omit-frame-pointer
        -fno-sanitize-recover=all)
    endif()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
    list(APPEND ATTEND_KERNEL_OBJECTS $<TARGET_OBJECTS:${object}>)
  endforeach()
  set(ATTEND_KERNEL_OBJECTS "${ATTEND_KERNEL_OBJECTS}" PARENT_SCOPE)  # for a test
endfunction()
