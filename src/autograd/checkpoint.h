#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace attend::autograd {

/// Implements activation checkpointing, which attend/checkpointing.h documents.
at::Tensor checkpointed(const std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>& run,
                        const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& captured);

}  // namespace attend::autograd
