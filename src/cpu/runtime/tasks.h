#pragma once

#include <cstdint>
#include <functional>

namespace attend::cpu {

/// Calls run(task, scratch) for task = 0 ... tasks - 1, on up to at::get_num_threads() threads, each of which
/// has its own scratch memory of `scratch_bytes`, aligned to 64 bytes. A thread takes the next task when it
/// has finished one, since tasks differ in duration. An exception of `run` is rethrown.
void run_tasks(int64_t tasks, int64_t scratch_bytes, const std::function<void(int64_t, void*)>& run);

}  // namespace attend::cpu
