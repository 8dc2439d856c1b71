#pragma once

#include "core/attention_call.h"

namespace attend::sdpa {

/// Whether the score modification only adds a tensor of the query's dtype, as ATen's floating-point mask
/// does.
bool can_express_score_mod(const AttentionCall& call);

/// Whether ATen has a fused kernel for the call; otherwise it would build the scores.
bool has_fused_kernel(const AttentionCall& call);

/// at::scaled_dot_product_attention with this library's semantics of masks, fully masked rows and key
/// lengths.
at::Tensor attention(const AttentionCall& call);

}  // namespace attend::sdpa
