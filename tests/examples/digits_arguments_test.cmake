# Checks the help and the errors of PROGRAM, the digits example.
execute_process(COMMAND ${PROGRAM} --help OUTPUT_VARIABLE help COMMAND_ERROR_IS_FATAL ANY)
foreach(option seed threads epochs save data)
  if(NOT help MATCHES "\n +--${option} ")
    message(FATAL_ERROR "digits --help does not list --${option}:\n${help}")
  endif()
endforeach()

# Runs PROGRAM with wrong arguments: it must exit with code 2 and print one line that says what was expected.
function(expect_error message)
  execute_process(COMMAND ${PROGRAM} ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT code EQUAL 2 OR NOT output STREQUAL "" OR NOT error MATCHES "^digits: [^\n]*${message}[^\n]*\n$")
    message(FATAL_ERROR "digits ${ARGN}: exit code ${code}, printed\n${output}${error}")
  endif()
endfunction()

expect_error("seed: expected an integer from 0" --seed -1)
expect_error("threads: expected an integer from 1 to 1024" --threads 0)
expect_error("epochs: expected an integer from 1" --epochs 1e3)
expect_error("epochs: expected an integer from 1" --epochs 99999999999999999999)
expect_error("save: expected a file in a folder that exists" --save /no/such/folder/digits.pt)
execute_process(COMMAND id -u OUTPUT_VARIABLE user OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT user EQUAL 0)  # root may write anywhere
  expect_error("save: expected a file that can be written" --save /digits.pt)
endif()
expect_error("No such file" --data /no/such/file)
expect_error("expected 65 fields" --data ${CMAKE_CURRENT_LIST_FILE})
expect_error("not expected: --colour" --colour)
