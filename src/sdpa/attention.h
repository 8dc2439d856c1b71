#pragma once

#include "core/attention_call.h"

namespace attend::sdpa {

/// Whether the score modification does nothing but add a tensor of the query's dtype, which ATen's function
/// takes as a floating-point mask.
bool can_express_score_mod(const AttentionCall& call);

/// Whether ATen has a fused kernel for the call; otherwise it would store all scores.
bool has_fused_kernel(const AttentionCall& call);

/// Computes at::scaled_dot_product_attention with this library's semantics of masks, fully masked rows and
/// key lengths.
at::Tensor attention(const AttentionCall& call);

}  // namespace attend::sdpa
