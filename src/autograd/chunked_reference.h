#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// The reference over a part of the queries at a time, forward and backward, so that the scores of all of
/// them never exist at once. Where a graph of the gradients is asked for, the whole reference computes them.
AttentionWithLse reference_in_chunks(const AttentionCall& call);

/// Whether the scores take so much memory that chunks are worth while.
bool has_many_scores(const AttentionCall& call);

}  // namespace attend::autograd
