#pragma once

#include <ATen/core/Tensor.h>

namespace attend::reference {

/// Repeats each head of a key or value for the query heads that read it; returns [B, heads, Lk, D].
at::Tensor repeat_heads(const at::Tensor& key_or_value, const c10::SymInt& heads);

/// Returns a boolean tensor [B, 1, Lk, 1] on `device`, which is true for key positions at or past lengths[b].
/// `lengths` is an integer tensor [B].
at::Tensor past_lengths(const at::Tensor& lengths, const c10::SymInt& keys, at::Device device);

}  // namespace attend::reference
