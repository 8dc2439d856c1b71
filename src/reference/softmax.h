#pragma once

#include <ATen/core/Tensor.h>

namespace attend::reference {

/// The rows of scores that are not fully masked, as a boolean column [B, H, Lq, 1].
at::Tensor rows_with_visible_key(const at::Tensor& scores);

/// The softmax over the last dimension, and 0 for fully masked rows.
at::Tensor softmax(const at::Tensor& scores);

}  // namespace attend::reference
