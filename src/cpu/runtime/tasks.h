#pragma once

#include <cstdint>
#include <functional>

namespace attend::cpu {

/// Calls run(task, scratch) for each task, on several threads, each with scratch memory of its own. Each
/// thread takes the next task when it is done with one: tasks differ in length.
void run_tasks(int64_t tasks, int64_t scratch_bytes, const std::function<void(int64_t, void*)>& run);

}  // namespace attend::cpu
