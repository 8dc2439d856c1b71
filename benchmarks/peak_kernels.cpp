// This file is compiled once for each instruction set; ATTEND_KERNELS is the name of the function that
// returns the kernels.
#include "peak_kernels.h"

#include "cpu/simd/operands.h"

namespace attend::benchmarks {
namespace {

using cpu::Vec;

/// The number of independent chains of multiply-adds: more than a processor executes concurrently, but few
/// enough for the registers.
constexpr int kChains = 12;
constexpr int64_t kLanes = cpu::kLanes<float>;

float horizontal_sum(const Vec<float>* chains) {
  Vec<float> total = chains[0];
  for (int chain = 1; chain < kChains; ++chain) total += chains[chain];
  float sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += total[lane];
  return sum;
}

float multiply_add(int64_t steps) {
  Vec<float> chains[kChains] = {};
  Vec<float> factor = cpu::broadcast(0.999F), summand = cpu::broadcast(0.001F);
  asm volatile("" : "+m"(factor), "+m"(summand));  // hides the values from the compiler
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) chains[chain] = chains[chain] * factor + summand;
  }
  return horizontal_sum(chains);
}

#if defined(__AVX512BF16__)
float multiply_add_bfloat16(int64_t steps) {
  Vec<float> chains[kChains] = {};
  Vec<cpu::BFloat16Pair> a = {}, b = {};
  asm volatile("" : "+m"(a), "+m"(b));
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) cpu::add_product<cpu::BFloat16Pair>(chains[chain], a, b);
  }
  return horizontal_sum(chains);
}
constexpr int64_t kBFloat16FlopsPerStep = 4 * kChains * kLanes;
#else
constexpr auto multiply_add_bfloat16 = multiply_add;
constexpr int64_t kBFloat16FlopsPerStep = 2 * kChains * kLanes;
#endif

float sum(const float* values, int64_t n) {
  Vec<float> chains[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) chains[chain] += cpu::load(values + i + chain * kLanes);
  }
  float rest = 0;
  for (; i < n; ++i) rest += values[i];
  return rest + horizontal_sum(chains);
}

}  // namespace

PeakKernels ATTEND_KERNELS();
PeakKernels ATTEND_KERNELS() {
  return {.multiply_add = multiply_add,
          .flops_per_step = 2 * kChains * kLanes,
          .multiply_add_bfloat16 = multiply_add_bfloat16,
          .bfloat16_flops_per_step = kBFloat16FlopsPerStep,
          .sum = sum};
}

}  // namespace attend::benchmarks
