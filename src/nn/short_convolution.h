#pragma once

#include <ATen/core/Tensor.h>

namespace attend::nn {

/// Returns the causal convolution of each channel with a separate filter, y_t = sum over n < size of weight_n
/// x_{t - size + 1 + n}, [B, L, channels]. `inputs` [B, size - 1 + L, channels] holds size - 1 inputs before
/// the first output, and then L more; `weight` is [channels, size].
at::Tensor short_convolution(const at::Tensor& inputs, const at::Tensor& weight);

/// Returns a random weight [channels, size], with the distribution that torch.nn.Conv1d uses for one group
/// per channel.
at::Tensor initial_short_convolution(int64_t channels, int64_t size);

}  // namespace attend::nn
