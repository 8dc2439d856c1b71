#pragma once

#include <cstdint>
#include <functional>

namespace attend::cpu {

/// Calls run(task, scratch) for task = 0 ... tasks - 1, on up to at::get_num_threads() threads. Each thread
/// has its own scratch memory of `scratch_bytes` bytes, aligned to 64 bytes. Threads take tasks one by one,
/// since tasks differ in duration. An exception that `run` throws is rethrown.
void run_tasks(int64_t tasks, int64_t scratch_bytes, const std::function<void(int64_t, void*)>& run);

}  // namespace attend::cpu
