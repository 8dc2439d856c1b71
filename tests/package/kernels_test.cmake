# Checks the objects of the kernels. Each must define one global symbol, the function that returns its table, and no
# weak symbol, since the linker could use the same symbol of another object instead. It must not use vector registers
# beyond those of its instruction set.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --extern-only ${object} OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
  list(LENGTH symbols count)
  if(NOT count EQUAL 1 OR NOT symbols MATCHES " T .*_kernels_")
    message(FATAL_ERROR "${object} defines more than its table:\n${symbols}")
  endif()
  set(forbidden "")
  if(symbols MATCHES "_kernels_default")
    set(forbidden "%[yz]mm")
  elseif(symbols MATCHES "_kernels_avx2")
    set(forbidden "%zmm")
  endif()
  if(forbidden)
    execute_process(COMMAND ${OBJDUMP} --disassemble --no-show-raw-insn ${object} OUTPUT_VARIABLE code
      COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCH "[^\n]*${forbidden}[^\n]*" line "${code}")
    if(line)
      message(FATAL_ERROR "${object} has an instruction beyond its instruction set: ${line}")
    endif()
  endif()
endforeach()
if(NOT OBJECTS)
  message(FATAL_ERROR "no objects were given")
endif()
