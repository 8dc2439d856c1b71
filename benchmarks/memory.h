#pragma once

#include <cstdint>
#include <string>

namespace attend::benchmarks {

/// Prints the peak memory of a forward and backward pass beyond its inputs at this length, in MB. Each memory
/// row calls this function in a separate process, so that no allocations of other rows are measured. `what`
/// is attention, module or torch_module. Returns the exit status: 1 if the result is wrong.
int print_extra_memory(const std::string& what, int64_t length);

}  // namespace attend::benchmarks
