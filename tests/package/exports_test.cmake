# Checks that LIBRARY exports public names only: every strong symbol that it defines, and every weak symbol in namespace
# attend, must belong to attend, attend::nn, attend::models, attend::text or attend::detail, which public templates use. Weak symbols
# of other namespaces are instances of templates.
execute_process(COMMAND ${NM} --dynamic --defined-only --demangle ${LIBRARY} OUTPUT_VARIABLE symbols
  COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-f]+ [TDBR] [^\n]*" strong "${symbols}")
list(LENGTH strong count)
if(count LESS 10)
  message(FATAL_ERROR "only ${count} strong symbols in ${LIBRARY}: has nm changed its format?")
endif()
list(FILTER strong EXCLUDE REGEX " (_init|_fini|_edata|_end|__bss_start)$")  # the linker's own
set(kind "(non-virtual thunk to |virtual thunk to |vtable for |VTT for |typeinfo for |typeinfo name for |guard variable for )?")
string(REGEX MATCHALL "[0-9a-f]+ [VWu] ${kind}attend::[^\n]*" weak "${symbols}")
foreach(symbol ${strong} ${weak})
  # A class, whose name has a capital, or a function.
  if(NOT symbol MATCHES " [A-Zu] ${kind}attend::(nn::|models::|text::|detail::)?([A-Z]|operator|[a-z_0-9]+([(]|[[]abi:))")
    message(FATAL_ERROR "exported, but not public: ${symbol}")
  endif()
  if(symbol MATCHES "anonymous namespace")
    message(FATAL_ERROR "exported, but not public: ${symbol}")
  endif()
endforeach()
