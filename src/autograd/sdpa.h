#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// Computes attention by ATen's scaled_dot_product_attention, recorded by autograd. A backward pass with
/// create_graph differentiates the reference instead, since ATen's kernels have no second derivatives.
at::Tensor sdpa(const AttentionCall& call);

}  // namespace attend::autograd
