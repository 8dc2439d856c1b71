#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// Computes attention by the reference, recorded by autograd. If the scores of all queries would take too
/// much memory, the forward and the backward pass compute one chunk of queries at a time. All scores are
/// computed at once if a tensor has a forward-mode tangent or is under a functional transform, and in a
/// backward pass with create_graph.
AttentionWithLse chunked_reference(const AttentionCall& call);

}  // namespace attend::autograd
