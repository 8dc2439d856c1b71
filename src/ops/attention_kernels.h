#pragma once

// The private operators of attention: the fused kernels as opaque operations, as they appear in a traced
// graph. attention_kernels.cpp computes them, attention_gradients.cpp has their derivatives, vmap.cpp the
// rule for vmap.

#include <tuple>

#include "ops/attention_arguments.h"

namespace attend::ops {

/// The output, the logsumexp, and its low-order word. The sum of both words is the logsumexp to twice the
/// precision, from which the backward recomputes the weights of large scores.
using AttentionForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// The gradients of query, key, value, alibi_slopes and attn_mask. The last two are undefined if the tensor
/// was not given or is not differentiable.
using AttentionGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Calls the forward operator. `dropout_seed` is int64 [1], or undefined without dropout.
AttentionForwardResult call_attention_forward(const AttentionArguments& arguments,
                                              const at::Tensor& dropout_seed);

/// Calls the backward operator. Either of the given gradients may be undefined.
AttentionGradients call_attention_backward(const AttentionArguments& arguments,
                                           const at::Tensor& dropout_seed,
                                           const AttentionForwardResult& result,
                                           const at::Tensor& grad_output, const at::Tensor& grad_logsumexp);

}  // namespace attend::ops
