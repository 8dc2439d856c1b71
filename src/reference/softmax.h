#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

namespace attend::reference {

/// The score of a hidden key.
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// The rows that see at least one key, as a column [B, H, Lq, 1].
at::Tensor seeing_rows(const at::Tensor& scores);

/// Over the last dimension; 0 in rows that see no key.
at::Tensor softmax(const at::Tensor& scores);

}  // namespace attend::reference
