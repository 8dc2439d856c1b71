#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// The reference with its gradients. If the scores of all queries would take much memory, both passes compute
/// one chunk of queries at a time. A tensor with a forward-mode tangent or under a functional transform needs
/// the graph of the whole, and so does a graph of the gradients: there the scores are built as a whole.
AttentionWithLse chunked_reference(const AttentionCall& call);

}  // namespace attend::autograd
