#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// Attention in plain ATen operations: the oracle for every fused kernel, and the fallback for calls that no
/// fused kernel serves. It builds the scores, works on every device and has every derivative that ATen has.
AttentionWithLse attention(const AttentionCall& call);

/// The results for the `rows` queries from `first` on.
AttentionWithLse attention_rows(const AttentionCall& call, int64_t first, int64_t rows);

/// The weights before dropout, in the query's dtype.
at::Tensor attention_weights(const AttentionCall& call);

}  // namespace attend::reference
