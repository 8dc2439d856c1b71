#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <functional>
#include <vector>

namespace attend {

/// Activation checkpointing (Chen 2016): computes run(inputs), and keeps only `inputs` and `captured` for the
/// backward pass, which calls `run` again to obtain the intermediate results. This saves memory at the cost
/// of a second forward pass.
///
/// | argument | meaning                                                                                     |
/// | --- | --- |
/// | run      | a function of `inputs` and `captured` alone that returns one tensor and may be called again |
/// | inputs   | what `run` is called with; an undefined tensor is passed on as it is                        |
/// | captured | every other tensor that `run` reads and that needs a gradient, such as parameters, and      |
/// |          | tensors that must not change in place before the backward pass                              |
///
/// The second call of `run` sees the state of the default generator of the inputs' device and the autocast
/// settings of the first call, so that dropout drops the same elements. During the second call, other threads
/// must not draw from this generator: they would draw the same numbers as `run`, and the state of the
/// generator is reset afterwards.
///
/// The result is differentiable twice. If no gradient is needed, if a tensor carries a forward-mode tangent,
/// and on the meta device, the function just returns run(inputs).
ATTEND_API at::Tensor checkpointed(
    const std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>& run,
    const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& captured = {});

}  // namespace attend
