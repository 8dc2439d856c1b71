#include "cpu/runtime/tasks.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <new>

namespace attend::cpu {
namespace {

/// The scratch memory of one thread, aligned for the widest vectors.
class ScratchMemory {
 public:
  explicit ScratchMemory(int64_t bytes)
      : data_(::operator new(static_cast<size_t>(bytes), std::align_val_t{64})) {}
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;
  ~ScratchMemory() { ::operator delete(data_, std::align_val_t{64}); }
  void* data() const { return data_; }

 private:
  void* data_;
};

}  // namespace

void run_tasks(int64_t tasks, int64_t scratch_bytes, const std::function<void(int64_t, void*)>& run) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(tasks, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const ScratchMemory scratch(scratch_bytes);
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int64_t task = next++; task < tasks; task = next++) run(task, scratch.data());
    }
  });
}

}  // namespace attend::cpu
