#pragma once

#include "core/linear_attention_call.h"

namespace attend::autograd {

/// The fused kernels with their gradients. Where a graph of the gradients is asked for, the chunked form in
/// plain ATen computes them.
LinearAttentionResult linear_attention(const LinearAttentionCall& call);

}  // namespace attend::autograd
