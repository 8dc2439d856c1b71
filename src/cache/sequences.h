#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attend::cache {

/// Returns the elements of `sequences`, the argument of a function `select`. Fails with an error of
/// `function` unless it is int64 [B'] with elements in 0 ... batch - 1.
std::vector<int64_t> checked_sequences(const char* function, const at::Tensor& sequences, int64_t batch);

}  // namespace attend::cache
