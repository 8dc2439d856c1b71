#pragma once

#include <cstdint>
#include <string>

namespace attend::benchmarks {

/// Prints the memory that a forward and backward pass takes besides its inputs at this length, in MB: what
/// the rows of memory start a process for, since the most memory that a process ever had can't be forgotten.
/// `what`: attention, module or torch_module. The exit status: 1 where the result is wrong.
int print_extra_memory(const std::string& what, int64_t length);

}  // namespace attend::benchmarks
