# Trains with PROGRAM, which fails if the held-out accuracy is below 95 %, or if the model that it saves in the folder
# WORK makes other predictions after it is loaded. Then trains twice for one epoch with the same seed, and once with
# another seed.
function(train result)
  execute_process(COMMAND ${PROGRAM} --save ${WORK}/digits.pt ${ARGN} OUTPUT_VARIABLE output
    COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE "[0-9]+ digits/s [^\n]*" "" output "${output}")  # the time it took
  set(${result} "${output}" PARENT_SCOPE)
endfunction()

train(output)
foreach(expected "1438 digits for training, 359 held out; seed 0" "epoch 60/60  loss 0[.]" "saved the model to "
    "the same predictions, (9[5-9][.][0-9]*|100[.]00) % of" "a held-out digit: true label [0-9], predicted [0-9]")
  if(NOT output MATCHES "${expected}")
    message(FATAL_ERROR "digits did not print ${expected}:\n${output}")
  endif()
endforeach()

set(one_epoch --epochs 1 --threads 2)
train(first ${one_epoch} --seed 3)
train(again ${one_epoch} --seed 3)
train(other ${one_epoch} --seed 4)
string(REPLACE "seed 4" "seed 3" other "${other}")
if(NOT first STREQUAL again OR first STREQUAL other)
  message(FATAL_ERROR "the result does not depend on the seed alone:\n${first}\n${again}\n${other}")
endif()
