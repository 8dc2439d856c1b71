#pragma once

#include <torch/nn/modules/linear.h>

namespace attend::nn {

/// What is done to each number of a product.
enum class Pointwise { none, relu, gelu };

/// pointwise(x W^T + b), of [..., in], [out, in] and [out], which may be undefined. Of float32 on the CPU,
/// where nothing is differentiated, it is a call of LibTorch's oneDNN, GELU included.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Pointwise pointwise = Pointwise::none);

inline torch::nn::Linear make_linear(int64_t in, int64_t out, bool bias = false) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
}

inline at::Tensor linear(const at::Tensor& x, const torch::nn::LinearImpl& of,
                         Pointwise pointwise = Pointwise::none) {
  return linear(x, of.weight, of.bias, pointwise);
}

}  // namespace attend::nn
