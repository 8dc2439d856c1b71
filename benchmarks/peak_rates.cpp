#include "peak_rates.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "compare.h"
#include "cpu/runtime/instruction_set.h"
#include "peak_kernels.h"

namespace attend::benchmarks {

PeakKernels peak_kernels_default();
PeakKernels peak_kernels_avx2();
PeakKernels peak_kernels_avx512();
PeakKernels peak_kernels_avx512_bf16();

namespace {

const PeakKernels& kernels() {
  static const auto selected = cpu::select_kernels<peak_kernels_default, peak_kernels_avx2,
                                                   peak_kernels_avx512, peak_kernels_avx512_bf16>();
  return selected;
}

/// Receives results, so that the compiler can't remove their computation.
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
  const auto* values = static_cast<const float*>(tensor.const_data_ptr());
  const auto count = static_cast<int64_t>(tensor.nbytes() / sizeof(float));
  at::parallel_for(0, count, 1, [values](int64_t begin, int64_t end) {
    sink = kernels().sum(values + begin, end - begin);
  });
}

double PeakRates::milliseconds(double flops, bool in_bfloat16, double bytes) const {
  return std::max(flops / (in_bfloat16 ? bfloat16_gflops : gflops), bytes / gigabytes) / 1e6;
}

PeakRates measure_peak_rates() {
  constexpr double kFlops = 1e9;
  const auto beyond_caches = torch::ones({int64_t{1} << 26});  // 256 MiB, more than any cache
  return {at::get_num_threads(), kFlops / 1e6 / median_of_runs([] { multiply_add(kFlops); }),
          kFlops / 1e6 / median_of_runs([] { multiply_add(kFlops, /*in_bfloat16=*/true); }),
          static_cast<double>(beyond_caches.nbytes()) / 1e6 / median_of_runs([&] { read(beyond_caches); })};
}

}  // namespace attend::benchmarks
