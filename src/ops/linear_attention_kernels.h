#pragma once

// The private operators of linear attention: the fused kernels as opaque operations, which stand in a traced
// graph. linear_attention_kernels.cpp computes them, linear_attention_gradients.cpp has their derivatives,
// vmap.cpp the rule for vmap.

#include <tuple>

#include "ops/linear_attention_arguments.h"

namespace attend::ops {

/// The output, the final state, and two values for the backward: the normaliser [B, H, Lq] and the output
/// before rounding [B, H, Lq, Dv]. Both have compute type, and are undefined without `normalize`. The output
/// before rounding is also undefined if the output has compute type.
using LinearForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// The gradients of query, key, value, log_decay, beta and initial_state; undefined for tensors that were not
/// given.
using LinearGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Calls the forward operator.
LinearForwardResult call_linear_forward(const LinearArguments& arguments);

/// Calls the backward operator. Either of the given gradients may be undefined.
LinearGradients call_linear_backward(const LinearArguments& arguments, const LinearForwardResult& result,
                                     const at::Tensor& grad_output, const at::Tensor& grad_final_state);

}  // namespace attend::ops
