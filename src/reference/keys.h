#pragma once

#include <ATen/core/Tensor.h>

namespace attend::reference {

/// A key or value whose heads are repeated for the query heads that read them: [B, H, Lk, D].
at::Tensor repeat_heads(const at::Tensor& key_or_value, int64_t heads);

/// [B, 1, Lk, 1] on `device`: true for the positions at or past the length of their batch element. `lengths`:
/// integers [B].
at::Tensor past_lengths(const at::Tensor& lengths, int64_t keys, at::Device device);

}  // namespace attend::reference
