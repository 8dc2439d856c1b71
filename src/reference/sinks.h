#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// Returns the factors by which output and weights of each row shrink when the sink of the row is added to
/// the denominator of the softmax: float64 [B, H, Lq, 1].
at::Tensor sink_factors(const at::Tensor& logsumexp, const at::Tensor& sinks);

/// Returns the result with sinks in the denominators of the softmax, given the result without sinks:
///
///     O' = O exp(L - L'),  L' = log(exp(L) + exp(sink))
///
/// It consists of plain ATen operations on rows, so that it works for every backend and has every derivative.
AttentionWithLse with_sinks(const AttentionWithLse& result, const at::Tensor& sinks);

}  // namespace attend::reference
