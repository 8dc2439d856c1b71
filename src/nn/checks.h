#pragma once

#include <ATen/core/Tensor.h>

namespace attend::nn {

/// The input that the others of a call are compared with.
struct FirstInput {
  const char* name;
  const at::Tensor& tensor;
  bool batch_first = true;  ///< else [L, B, width]
};

/// Fails, in the name of a module, unless the tensor is [B, L, width] or [L, width], of as many dimensions
/// and the batch size of the first input, and of the parameter's device and dtype; where autocast is on, it
/// gives both a dtype in common, unless one is of float64.
void check_input(const char* module, const char* argument, const at::Tensor& tensor, int64_t width,
                 const FirstInput& first, const at::Tensor& parameter);

/// Fails unless the width is at least 1.
void check_width(const char* module, const char* argument, int64_t width);

/// Fails unless the number is in [0, 1].
void check_probability(const char* module, const char* argument, double probability);

/// Both as inputs q and k of a module with this parameter.
void check_query_key(const char* module, const at::Tensor& q, int64_t d_q, const at::Tensor& k, int64_t d_k,
                     const at::Tensor& parameter);

/// An input v of any width beside them.
void check_value(const char* module, const at::Tensor& v, const at::Tensor& q, const at::Tensor& k,
                 const at::Tensor& parameter);

}  // namespace attend::nn
