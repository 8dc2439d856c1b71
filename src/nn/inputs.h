#pragma once

#include <ATen/core/Tensor.h>

namespace attend::nn {

/// The input that the others of a call are compared with.
struct FirstInput {
  const char* name;
  const at::Tensor& tensor;
};

/// Fails, in the name of a module, unless the tensor is [B, L, width] or [L, width], of as many dimensions
/// and the batch size of the first input, and of the parameter's device and dtype; where autocast is on, it
/// gives both a dtype in common, unless one is of float64.
void check_input(const char* module, const char* argument, const at::Tensor& tensor, int64_t width,
                 const FirstInput& first, const at::Tensor& parameter);

}  // namespace attend::nn
