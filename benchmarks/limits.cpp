#include "limits.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "compare.h"
#include "cpu/runtime/dispatch.h"
#include "limits_kernel.h"

namespace attend::benchmarks {

LimitKernels limits_kernels_default();
LimitKernels limits_kernels_avx2();
LimitKernels limits_kernels_avx512();
LimitKernels limits_kernels_avx512_bf16();

namespace {

const LimitKernels& kernels() {
  static const auto selected = cpu::select_kernels<limits_kernels_default, limits_kernels_avx2,
                                                   limits_kernels_avx512, limits_kernels_avx512_bf16>();
  return selected;
}

/// Results go here, so that the compiler can't leave their computation out.
std::atomic<float> sink;

double median_of_runs(const std::function<void()>& run) {
  run();
  std::vector<double> times(5);
  for (auto& time : times) time = milliseconds(run);
  return median(times);
}

}  // namespace

void multiply_add(double flops, bool in_bfloat16) {
  const int threads = at::get_num_threads();
  const auto run = in_bfloat16 ? kernels().multiply_add_bfloat16 : kernels().multiply_add;
  const auto per_step = in_bfloat16 ? kernels().bfloat16_flops_per_step : kernels().flops_per_step;
  const auto steps = static_cast<int64_t>(flops / static_cast<double>(threads * per_step));
  at::parallel_for(0, threads, 1, [run, steps](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) sink = run(steps);
  });
}

void read(const torch::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "a contiguous tensor was expected");
  const auto* numbers = static_cast<const float*>(tensor.const_data_ptr());
  const auto count = static_cast<int64_t>(tensor.nbytes() / sizeof(float));
  at::parallel_for(0, count, 1, [numbers](int64_t begin, int64_t end) {
    sink = kernels().sum(numbers + begin, end - begin);
  });
}

double Limits::milliseconds(double flops, bool in_bfloat16, double bytes) const {
  return std::max(flops / (in_bfloat16 ? bfloat16_gflops : gflops), bytes / gigabytes) / 1e6;
}

Limits measure_limits() {
  constexpr double kFlops = 1e9;
  const auto beyond_caches = torch::ones({int64_t{1} << 26});  // 256 MiB
  return {kFlops / 1e6 / median_of_runs([] { multiply_add(kFlops); }),
          kFlops / 1e6 / median_of_runs([] { multiply_add(kFlops, /*in_bfloat16=*/true); }),
          static_cast<double>(beyond_caches.nbytes()) / 1e6 / median_of_runs([&] { read(beyond_caches); })};
}

}  // namespace attend::benchmarks
