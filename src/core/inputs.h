#pragma once

#include <ATen/core/Tensor.h>

namespace attend {

/// Fails, in the name of `function`, unless query, key and value fit each other: [B, H, L, D], [B, L, D] or
/// [L, D].
void check_inputs(const char* function, const at::Tensor& query, const at::Tensor& key,
                  const at::Tensor& value);

/// The tensor with its values in memory as they are: a negation or zeros that PyTorch only took note of are
/// carried out.
at::Tensor materialized(const at::Tensor& tensor);

/// Views [B, L, D] as [B, 1, L, D] and [L, D] as [1, 1, L, D], materialized.
at::Tensor with_heads(const at::Tensor& tensor);

/// The reverse of `with_heads`.
at::Tensor without_heads(const at::Tensor& tensor, int64_t query_dim);

}  // namespace attend
