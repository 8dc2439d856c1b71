# Runs PROGRAM for a few steps: it must train each mixer, time it up to the longest length, and write charts to WORK.
set(drawing ${WORK}/long_range.svg)
file(REMOVE ${drawing})
execute_process(COMMAND ${PROGRAM} --steps 4 --batch 2 --longest 1024 --output ${drawing} OUTPUT_VARIABLE output
  COMMAND_ERROR_IS_FATAL ANY)
foreach(expected "softmax: [0-9]+ parameters" "linear: [0-9]+ parameters" "retention: [0-9]+ parameters"
    "gated delta: [0-9]+ parameters" "64 pairs, 256 tokens: +[0-9.]+ % recalled" "\n +1024( +[0-9.]+ ms +[0-9]+ MB)+\n"
    "wrote ")
  if(NOT output MATCHES "${expected}")
    message(FATAL_ERROR "long_range did not print ${expected}:\n${output}")
  endif()
endforeach()
file(READ ${drawing} svg)
if(NOT svg MATCHES "^<svg [^>]*>.*<polyline [^>]*/>.*</svg>\n$")
  message(FATAL_ERROR "the charts are not as expected:\n${svg}")
endif()
