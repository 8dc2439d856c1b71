# Sets RESULT to the Python interpreter whose torch package is the LibTorch that is built against; empty if the LibTorch
# does not belong to a Python.
function(attend_find_python result)
  get_filename_component(package ${Torch_DIR}/../../.. REALPATH)             # .../site-packages/torch
  get_filename_component(environment ${package}/../../../.. ABSOLUTE)        # of a virtual environment or a system
  set(${result} "" PARENT_SCOPE)
  foreach(python ${environment}/bin/python3 python3)
    execute_process(COMMAND ${python} -c
      "import importlib.util as u, os; s = u.find_spec('torch'); print(s and os.path.realpath(os.path.dirname(s.origin)))"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(failed STREQUAL 0 AND found STREQUAL package)
      set(${result} ${python} PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()
