#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace attend::autograd {

/// run(inputs), of which the graph keeps the inputs alone: what is between is computed again for the gradient
/// (activation checkpointing, Chen 2016), with the random numbers and the autocast of the first time.
/// `captured`: what else `run` reads, such as parameters, to which gradients flow, and a mask's tensors.
/// Differentiable, twice too; in forward mode and on the meta device it is run(inputs) and no more.
at::Tensor recompute(const std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>& run,
                     const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& captured);

}  // namespace attend::autograd
