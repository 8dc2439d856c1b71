#pragma once

#include "sides.h"

namespace attend::benchmarks {

/// Returns sides that compute self-attention over `length` tokens by nn::MultiHeadAttention(512, 8) and by
/// torch::nn's module: the output, and the gradients of the input and of the parameters.
Sides module_training_sides(int64_t length);

}  // namespace attend::benchmarks
