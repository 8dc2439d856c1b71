#include "nn/decay.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/softplus.h>

#include <cmath>

#include "core/dtypes.h"

namespace attend::nn {

at::Tensor retention_log_decay(int64_t num_heads, const at::Tensor& input) {
  const auto head = at::arange(num_heads, input.options().dtype(at::kDouble));
  return at::log1p(-at::exp2(-5 - head)).to(compute_type(input));
}

at::Tensor sigmoid_log_decay(const at::Tensor& gate, double temperature) {
  return at::log_sigmoid(widen(gate)) / temperature;
}

at::Tensor delta_log_decay(const at::Tensor& A_log, const at::Tensor& step, const at::Tensor& dt_bias) {
  const auto wide_step = widen(step);
  const auto type = wide_step.scalar_type();
  return -at::exp(A_log.to(type)).unsqueeze(-1) * at::softplus(wide_step + dt_bias.to(type).unsqueeze(-1));
}

at::Tensor initial_A_log(int64_t num_heads) { return at::log(at::rand({num_heads}) * 16 + 1e-4); }

at::Tensor initial_dt_bias(int64_t num_heads) {
  const auto dt = at::exp(at::rand({num_heads}) * std::log(100.0) + std::log(0.001));
  return dt + at::log(-at::expm1(-dt));
}

}  // namespace attend::nn
