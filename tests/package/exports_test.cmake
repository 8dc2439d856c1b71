# Only what is public is exported: every strong symbol that LIBRARY defines belongs to namespace attend.
execute_process(COMMAND ${NM} --dynamic --defined-only --demangle ${LIBRARY} OUTPUT_VARIABLE symbols
  COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-f]+ [TDBR] [^\n]*" strong "${symbols}")
list(LENGTH strong count)
if(count LESS 10)
  message(FATAL_ERROR "only ${count} strong symbols in ${LIBRARY}: has nm changed its format?")
endif()
list(FILTER strong EXCLUDE REGEX " (_init|_fini|_edata|_end|__bss_start)$")  # the linker's own
foreach(symbol ${strong})
  if(NOT symbol MATCHES " [TDBR] (vtable for |typeinfo for |typeinfo name for )?attend::")
    message(FATAL_ERROR "exported, but not attend's: ${symbol}")
  endif()
  if(symbol MATCHES "attend::(checks|reference)::" OR symbol MATCHES "anonymous namespace")
    message(FATAL_ERROR "exported, but not public: ${symbol}")
  endif()
endforeach()
