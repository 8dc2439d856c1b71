#pragma once

#include "sides.h"

namespace attend::benchmarks {

/// Self-attention of this many tokens with nn::MultiHeadAttention(512, 8) and torch::nn's: the output, and
/// the gradients of the input and of the parameters.
Sides module_training_sides(int64_t length);

}  // namespace attend::benchmarks
