#pragma once

#include <ATen/core/Tensor.h>

namespace attend::reference {

/// Returns a boolean column [B, H, Lq, 1] that is true for the rows of scores that are not fully masked.
at::Tensor rows_with_visible_key(const at::Tensor& scores);

/// Returns the softmax over the last dimension, and 0 for fully masked rows.
at::Tensor softmax(const at::Tensor& scores);

}  // namespace attend::reference
