#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace attend {

/// The sizes of the scores [B, H, Lq, Lk].
struct ScoreShape {
  int64_t batch;
  int64_t heads;
  int64_t queries;
  int64_t keys;
};

namespace checks {

/// Throws c10::Error: "attend::function: argument: expected ..., got ...".
[[noreturn]] void fail(const char* function, const char* argument, const std::string& expected,
                       const std::string& got);

/// "float32" for at::kFloat.
std::string dtype_name(at::ScalarType dtype);

/// What an error message says of a tensor: "float32 [2, 3]".
std::string describe(const at::Tensor& tensor);

/// Fails unless the tensor is defined and dense in memory.
void is_strided(const char* function, const char* argument, const at::Tensor& tensor);

/// Fails unless the tensor is of float64, float32, bfloat16 or float16.
void is_floating(const char* function, const char* argument, const at::Tensor& tensor);

void on_device(const char* function, const char* argument, const at::Tensor& tensor, at::Device device);

/// Views a mask or bias as four dimensions that broadcast to the scores; a tensor of three dimensions is
/// [B, Lq, Lk] for a query of three dimensions and [H, Lq, Lk] for one of four. Fails where it does not
/// broadcast.
at::Tensor broadcastable(const char* function, const char* argument, const at::Tensor& tensor,
                         const ScoreShape& shape, int64_t query_dim);

}  // namespace checks
}  // namespace attend
