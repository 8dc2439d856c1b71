#pragma once

// The version of the library; CMake reads it from here.
/// The major version.
#define ATTEND_VERSION_MAJOR 0
/// The minor version.
#define ATTEND_VERSION_MINOR 1
/// The patch version.
#define ATTEND_VERSION_PATCH 0
