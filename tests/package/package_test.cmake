# Builds and runs the consumer project. MODE is
#   install: against an attend installed from BUILD into a folder that is then moved, as packages are
#   add_subdirectory: with attend's SOURCE as a part of it
# WORK is emptied first. TORCH is the folder of TorchConfig.cmake.
function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(options -G Ninja -DCMAKE_BUILD_TYPE=Release -DTorch_DIR=${TORCH} -DCMAKE_CXX_COMPILER=${COMPILER})
if(MODE STREQUAL install)
  run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first)
  file(RENAME ${WORK}/first ${WORK}/moved)
  file(GLOB_RECURSE package_files ${WORK}/moved/*.cmake)
  foreach(file ${package_files})
    file(READ ${file} text)
    if(text MATCHES "${WORK}" OR text MATCHES "${TORCH}")
      message(FATAL_ERROR "${file} holds a path of the machine that built it")
    endif()
  endforeach()
  list(APPEND options -DCMAKE_PREFIX_PATH=${WORK}/moved)
else()
  list(APPEND options -DATTEND_SOURCE=${SOURCE})
endif()
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/package/consumer -B ${WORK}/build ${options})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
