#pragma once

#include <ATen/core/Tensor.h>

namespace attend {

/// Fails, in the name of `function`, unless query, key and value fit each other: [B, H, L, D], [B, L, D] or
/// [L, D].
void check_inputs(const char* function, const at::Tensor& query, const at::Tensor& key,
                  const at::Tensor& value);

/// Views [B, L, D] as [B, 1, L, D] and [L, D] as [1, 1, L, D].
at::Tensor with_heads(const at::Tensor& tensor);

/// The reverse of `with_heads`.
at::Tensor without_heads(const at::Tensor& tensor, int64_t query_dim);

}  // namespace attend
