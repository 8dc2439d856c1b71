#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// The fused kernel with its gradients. Where a graph of the gradients is asked for, the reference computes
/// them.
AttentionWithLse attention(const AttentionCall& call);

}  // namespace attend::autograd
