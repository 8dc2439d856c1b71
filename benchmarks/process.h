#pragma once

#include <string>

namespace attend::benchmarks {

/// Runs a shell command and returns its standard output. Throws std::runtime_error if the command fails.
std::string output_of(const std::string& command);

}  // namespace attend::benchmarks
