#pragma once

#include "core/attention_call.h"

namespace attend::autograd {

/// ATen's attention with its gradients. If a graph of the gradients is requested, the reference computes
/// them, since ATen's kernels have no second derivatives.
at::Tensor sdpa(const AttentionCall& call);

}  // namespace attend::autograd
