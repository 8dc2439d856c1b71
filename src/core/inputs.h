#pragma once

#include <ATen/core/Tensor.h>

namespace attend {

/// Throws an error of `function` unless query, key and value are [B, H, L, D], [B, L, D] or [L, D], and their
/// sizes, dtypes and devices fit each other.
void check_inputs(const char* function, const at::Tensor& query, const at::Tensor& key,
                  const at::Tensor& value);

/// Resolves a lazy negation and materializes a ZeroTensor, so that data_ptr() points to the values.
at::Tensor materialized(const at::Tensor& tensor);

/// Returns the materialized tensor, with [B, L, D] viewed as [B, 1, L, D] and [L, D] as [1, 1, L, D].
at::Tensor with_heads(const at::Tensor& tensor);

/// The reverse of `with_heads` for a query of `query_dim` dimensions.
at::Tensor without_heads(const at::Tensor& tensor, int64_t query_dim);

}  // namespace attend
