# Adds a kernel source to a target once for each instruction set of the processor's family: default, avx2 and avx512
# unless others are named. At run time the best instruction set that the processor has is chosen. ATTEND_KERNELS is a
# macro for the name of the function that the source defines: NAME_default, NAME_avx2, NAME_avx512.
function(attend_kernels target source name)
  set(isas ${ARGN})
  if(NOT isas)
    set(isas default avx2 avx512)
  endif()
  set(flags_default "")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    # These flags disable instruction sets that -march and similar flags in CMAKE_CXX_FLAGS enable, so that each table
    # of kernels needs only its own instruction set.
    set(flags_default -march=x86-64 -mno-sse3)
    set(flags_avx2 ${flags_default} -mavx2 -mfma -mf16c)
    set(flags_avx512 ${flags_default} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
      -mprefer-vector-width=512)
    set(flags_avx512_bf16 ${flags_avx512} -mavx512bf16)
  endif()
  if(flags_default AND ATTEND_AVX_KERNELS)
    target_compile_definitions(${target} PRIVATE ATTEND_X86)
  else()
    list(FILTER isas INCLUDE REGEX default)
  endif()
  foreach(isa IN LISTS isas)
    set(object attend_${name}_${isa})
    add_library(${object} OBJECT ${source})
    attend_compile_options(${object})
    # Kernels are always optimised, and never at link time: an inline function that is not inlined could be linked into
    # the kernels of another instruction set.
    target_compile_options(${object} PRIVATE -O3 -fno-lto ${flags_${isa}})
    target_compile_definitions(${object} PRIVATE ATTEND_KERNELS=${name}_${isa})
    target_compile_features(${object} PRIVATE cxx_std_20)
    target_include_directories(${object} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    set_target_properties(${object} PROPERTIES
      POSITION_INDEPENDENT_CODE ON
      CXX_VISIBILITY_PRESET hidden
      INTERPROCEDURAL_OPTIMIZATION OFF
      UNITY_BUILD OFF)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
    list(APPEND ATTEND_KERNEL_OBJECTS $<TARGET_OBJECTS:${object}>)
  endforeach()
  set(ATTEND_KERNEL_OBJECTS "${ATTEND_KERNEL_OBJECTS}" PARENT_SCOPE)  # for a test
endfunction()
