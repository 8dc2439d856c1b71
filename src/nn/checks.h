#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "core/error_context.h"

namespace attend::nn {

/// The names of arguments in the errors of masks, each with the name that it has in a module.
inline constexpr checks::ArgumentName kMaskNames[] = {
    {"key_lengths", "mask"}, {"prefix", "mask"}, {"document_ids", "mask"}, {"mask_mod", "mask"}};

/// The first input of a call. All inputs must have the same number of dimensions and the same batch size.
struct FirstInput {
  const char* name;
  const at::Tensor& tensor;
  bool batch_first = true;  ///< false means [L, B, width]
};

/// Fails with an error of `module` unless the tensor is [B, L, width] or [L, width], with the number of
/// dimensions and the batch size of the first input, and with the device and dtype of the parameter. Under
/// autocast the dtypes may differ, unless one of them is float64.
void check_input(const char* module, const char* argument, const at::Tensor& tensor, int64_t width,
                 const FirstInput& first, const at::Tensor& parameter);

/// Returns the dtype of a product with this weight: the autocast dtype if autocast would convert the weight,
/// otherwise the dtype of the weight.
at::ScalarType linear_dtype(const at::Tensor& weight);

/// Fails with an error of `name` if gradients are recorded and an input or a parameter of the module requires
/// one: appending to a cache would lose the gradient.
void check_no_gradient(const char* name, const torch::nn::Module& module, at::TensorList inputs);

/// Fails unless an option, which may have changed after the construction, still `fits` the parameters.
void check_option(const char* module, const char* option, bool fits);

/// Fails unless the width is at least 1.
void check_width(const char* module, const char* argument, int64_t width);

/// Fails unless the probability is in [0, 1].
void check_probability(const char* module, const char* argument, double probability);

/// Checks the inputs q and k of a module, which must have the device and dtype of a parameter.
void check_query_key(const char* module, const at::Tensor& q, int64_t d_q, const at::Tensor& k, int64_t d_k,
                     const at::Tensor& parameter);

/// Checks the input v, which may have any width, but must have one row per key.
void check_value(const char* module, const at::Tensor& v, const at::Tensor& q, const at::Tensor& k,
                 const at::Tensor& parameter);

}  // namespace attend::nn
