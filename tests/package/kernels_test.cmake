# An object of the kernels may define its table and nothing else that the linker could take for another's: no weak
# symbol, no second global one.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --extern-only ${object} OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
  list(LENGTH symbols count)
  if(NOT count EQUAL 1 OR NOT symbols MATCHES " T .*_kernels_")
    message(FATAL_ERROR "${object} defines more than its table:\n${symbols}")
  endif()
endforeach()
if(NOT OBJECTS)
  message(FATAL_ERROR "no objects were given")
endif()
