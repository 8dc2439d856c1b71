# Builds and runs the consumer project. MODE is
#   install: against an attend installed from BUILD into a folder that is then moved, as packages are
#   add_subdirectory: with attend's SOURCE as a part of it, and flags that must not reach attend's arithmetic. Only the
#     baseline kernels are built, and the library with little optimisation, since each takes time
# WORK is emptied first. TORCH is the folder of TorchConfig.cmake; READELF, NM and OBJDUMP are the programs.
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
  file(GLOB_RECURSE library ${WORK}/moved/libattend.so)
  execute_process(COMMAND ${READELF} -d ${library} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
  if(NOT dynamic MATCHES "R(UN)?PATH[^\n]*\\[[$]ORIGIN\\]")
    message(FATAL_ERROR "${library} looks for libraries elsewhere than beside it:\n${dynamic}")
  endif()
  file(GLOB_RECURSE licence ${WORK}/moved/*/LICENSE)
  if(NOT licence)
    message(FATAL_ERROR "the licence is not installed")
  endif()
  list(APPEND options -DCMAKE_PREFIX_PATH=${WORK}/moved)
else()
  list(APPEND options -DATTEND_SOURCE=${SOURCE} -DCMAKE_UNITY_BUILD=ON -DATTEND_AVX_KERNELS=OFF
    "-DCMAKE_CXX_FLAGS=-ffast-math -march=native" "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG")
endif()
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/package/consumer -B ${WORK}/build ${options})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
if(MODE STREQUAL add_subdirectory)
  file(GLOB_RECURSE objects ${WORK}/build/attend/CMakeFiles/attend_*_kernels_*.o)
  run(${CMAKE_COMMAND} -DNM=${NM} -DOBJDUMP=${OBJDUMP} "-DOBJECTS=${objects}" -P ${SOURCE}/tests/package/kernels_test.cmake)
endif()

if(MODE STREQUAL install)
  # The same attend beside a LibTorch of another version must be refused.
  file(WRITE ${WORK}/torch/TorchConfig.cmake "")
  file(WRITE ${WORK}/torch/TorchConfigVersion.cmake "set(PACKAGE_VERSION 1.13.0)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE}/tests/package/consumer -B ${WORK}/other ${options}
    -DTorch_DIR=${WORK}/torch RESULT_VARIABLE code OUTPUT_QUIET ERROR_VARIABLE error)
  if(code EQUAL 0 OR NOT error MATCHES "attend was built against LibTorch [0-9.]+;[ \n]+the one in")
    message(FATAL_ERROR "attend beside another LibTorch: exit code ${code}, printed\n${error}")
  endif()
endif()
