#pragma once

#include "core/attention_call.h"

namespace attend {

/// Fails, in the name of `function`, where sinks do not fit a call.
void check_sinks(const char* function, const at::Tensor& sinks, const AttentionCall& call);

/// What each row's output and weights are multiplied by where a sink joins its denominator, [B, H, Lq, 1], in
/// float64.
at::Tensor sink_factors(const at::Tensor& logsumexp, const at::Tensor& sinks);

/// The result with sinks in the denominators of the softmax, from the one without:
///
///     O' = O exp(L - L'),  L' = log(exp(L) + exp(sink))
///
/// In plain ATen operations on rows, so that every backend and derivative has it.
AttentionWithLse with_sinks(const AttentionWithLse& result, const at::Tensor& sinks);

}  // namespace attend
