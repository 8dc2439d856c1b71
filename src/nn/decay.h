#pragma once

// The log decays of recurrent mixers, in float32 (float64 for float64).

#include <ATen/core/Tensor.h>

namespace attend::nn {

/// Returns log(1 - 2^(-5 - h)) for each head h, [H] (Sun 2023, equation 8), on the device and in the compute
/// type of `input`.
at::Tensor retention_log_decay(int64_t num_heads, const at::Tensor& input);

/// Returns log(sigmoid(gate)^(1 / temperature)) (Yang 2023, section 4.4).
at::Tensor sigmoid_log_decay(const at::Tensor& gate, double temperature);

/// Returns -exp(A_log) softplus(step + dt_bias) (Dao & Gu 2024, as in Yang & Kautz 2024), where step is [B,
/// H, L], and A_log and dt_bias are [H].
at::Tensor delta_log_decay(const at::Tensor& A_log, const at::Tensor& step, const at::Tensor& dt_bias);

/// Returns an initial value of `A_log`, [H]: the logarithms of random values that are uniform in (0, 16).
at::Tensor initial_A_log(int64_t num_heads);

/// Returns an initial value of `dt_bias`, [H]: the inverse softplus of random values between 0.001 and 0.1
/// whose logarithms are uniform (Gu & Dao 2023).
at::Tensor initial_dt_bias(int64_t num_heads);

}  // namespace attend::nn
