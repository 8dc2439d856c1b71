#pragma once

#include "core/attention_call.h"

namespace attend::sdpa {

/// Whether the score modification does nothing but add a tensor, as ATen's mask of floats does.
bool can_express_score_mod(const AttentionCall& call);

/// Whether ATen has a fused kernel for the call; else it would build the scores.
bool has_fused_kernel(const AttentionCall& call);

/// at::scaled_dot_product_attention with the meanings of this library.
at::Tensor attention(const AttentionCall& call);

}  // namespace attend::sdpa
