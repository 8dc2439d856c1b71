#pragma once

// The private operators of attention, which a traced graph contains: the fused kernels as opaque operations.

#include <tuple>

#include "ops/attention_arguments.h"

namespace attend::ops {

/// Output, logsumexp, and its low-order word: high + low is the logsumexp to twice the precision, from which
/// the backward recomputes the weights of large scores.
using AttentionForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// The gradients of query, key, value, alibi_slopes and attn_mask; undefined for the last two where they were
/// not given or are not differentiable.
using AttentionGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// `dropout_seed`: int64 [1]; undefined without dropout.
AttentionForwardResult call_attention_forward(const AttentionArguments& arguments,
                                              const at::Tensor& dropout_seed);

/// Either gradient may be undefined.
AttentionGradients call_attention_backward(const AttentionArguments& arguments,
                                           const at::Tensor& dropout_seed,
                                           const AttentionForwardResult& result,
                                           const at::Tensor& grad_output, const at::Tensor& grad_logsumexp);

}  // namespace attend::ops
