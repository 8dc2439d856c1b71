#pragma once

namespace attend::benchmarks {

/// Prints the memory that a forward and backward pass takes besides its inputs at this length, in MB: what
/// the row of that name starts a process for, since the most memory that a process ever had can't be
/// forgotten. The exit status: 1 where the result is wrong.
int print_extra_memory(int64_t length);

}  // namespace attend::benchmarks
