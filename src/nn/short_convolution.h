#pragma once

#include <ATen/core/Tensor.h>

namespace attend::nn {

/// The causal convolution of each channel with its own filter: y_t = sum over n < size of weight_n x_{t -
/// size + 1 + n}. `inputs` [B, size - 1 + L, channels] holds the size - 1 inputs before the first output and
/// the L that follow; `weight` is [channels, size]. Returns [B, L, channels].
at::Tensor short_convolution(const at::Tensor& inputs, const at::Tensor& weight);

/// A weight [channels, size] drawn as torch.nn.Conv1d draws that of one group for each channel.
at::Tensor initial_short_convolution(int64_t channels, int64_t size);

}  // namespace attend::nn
