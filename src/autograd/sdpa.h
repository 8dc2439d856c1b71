#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// ATen's attention with its gradients. Where a graph of the gradients is asked for, the reference computes
/// them: ATen's kernels have no second derivatives.
at::Tensor sdpa(const AttentionCall& call);

}  // namespace attend::autograd
