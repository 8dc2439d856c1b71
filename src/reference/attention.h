#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// Computes attention in plain ATen operations: the oracle for every fused kernel, and the fallback for calls
/// that no fused kernel supports. It stores all scores, works on every device and has every derivative that
/// ATen has.
AttentionWithLse attention(const AttentionCall& call);

/// Computes attention for the queries [first, first + rows) only.
AttentionWithLse attention_rows(const AttentionCall& call, const c10::SymInt& first, const c10::SymInt& rows);

/// Returns the attention weights before dropout, in the query's dtype.
at::Tensor attention_weights(const AttentionCall& call);

}  // namespace attend::reference
