#pragma once

#include <string>

namespace attend::benchmarks {

/// What a command of the shell writes to its standard output. Throws std::runtime_error where it fails.
std::string output_of(const std::string& command);

}  // namespace attend::benchmarks
