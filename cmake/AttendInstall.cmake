# Installs the library as the CMake package `attend`, which can be moved with everything in its prefix.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/attend)
install(TARGETS attend EXPORT attend-targets)
if(ATTEND_BUILD_MODELS)
  install(TARGETS attend_models EXPORT attend-targets)
  install(DIRECTORY include/attend TYPE INCLUDE)
else()
  install(DIRECTORY include/attend TYPE INCLUDE PATTERN models EXCLUDE PATTERN text EXCLUDE)
endif()
install(FILES LICENSE TYPE DOC)
install(EXPORT attend-targets NAMESPACE attend:: DESTINATION ${package_folder})

string(REGEX MATCH "^[0-9]+[.][0-9]+" ATTEND_TORCH_SERIES ${Torch_VERSION})
configure_package_config_file(cmake/attend-config.cmake.in ${PROJECT_BINARY_DIR}/attend-config.cmake
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attend-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attend-config.cmake ${PROJECT_BINARY_DIR}/attend-config-version.cmake
  DESTINATION ${package_folder})
