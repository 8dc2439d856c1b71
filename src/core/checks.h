#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "core/score_shape.h"

namespace attend::checks {

/// Throws attend::Error: "attend::function: argument: expected ..., got ...".
[[noreturn]] void fail(const char* function, const char* argument, const std::string& expected,
                       const std::string& got);

/// Returns the name of a dtype, such as "float32" for at::kFloat.
std::string dtype_name(at::ScalarType dtype);

/// Returns the dtype and shape of a tensor, as in "float32 [2, 3]".
std::string describe(const at::Tensor& tensor);

/// Fails unless the tensor is defined and strided.
void check_strided(const char* function, const char* argument, const at::Tensor& tensor);

/// Fails unless the tensor's dtype is float64, float32, bfloat16 or float16.
void check_floating(const char* function, const char* argument, const at::Tensor& tensor);

/// Fails unless the tensor is on the query's device, `device`.
void check_device(const char* function, const char* argument, const at::Tensor& tensor, at::Device device);

/// Fails if the tensor is on the meta device, but the query's device, `device`, is not.
void check_has_data(const char* function, const char* argument, const at::Tensor& tensor, at::Device device);

/// Returns a mask or bias as a view of at least four dimensions. A tensor of three dimensions is [B, Lq, Lk]
/// for a query of three dimensions, and [H, Lq, Lk] for a query of four dimensions.
at::Tensor with_score_dims(const at::Tensor& tensor, int64_t query_dim);

/// Returns the same view. Fails if the tensor does not broadcast to the scores.
at::Tensor broadcastable(const char* function, const char* argument, const at::Tensor& tensor,
                         const ScoreShape& shape, int64_t query_dim);

/// Returns the rows that `shape` selects from a tensor whose dimension 2 is 1 or Lq, such as a result of
/// `broadcastable` or a query.
at::Tensor rows_of(const at::Tensor& tensor, const SymScoreShape& shape);

}  // namespace attend::checks
