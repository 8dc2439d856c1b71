#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// The factor of each row's output and weights when its sink is added to the softmax's denominator,
/// [B, H, Lq, 1], in float64.
at::Tensor sink_factors(const at::Tensor& logsumexp, const at::Tensor& sinks);

/// The result with sinks in the denominators of the softmax, given the result without them:
///
///     O' = O exp(L - L'),  L' = log(exp(L) + exp(sink))
///
/// In plain ATen operations on rows, so that it serves every backend and has every derivative.
AttentionWithLse with_sinks(const AttentionWithLse& result, const at::Tensor& sinks);

}  // namespace attend::reference
