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
  /// The queries whose rows are written out: all, or a part of them.
  int64_t first_row = 0;
  int64_t rows = queries;

  ScoreShape part(int64_t first, int64_t count) const { return {batch, heads, queries, keys, first, count}; }
};

namespace checks {

/// Throws c10::Error: "attend::function: argument: expected ..., got ...".
[[noreturn]] void fail(const char* function, const char* argument, const std::string& expected,
                       const std::string& got);

/// While it lives, this thread's errors of `callee` name `caller` instead, and the arguments as the caller
/// does; one that isn't listed keeps its name.
class Caller {
 public:
  struct Argument {
    const char* of_callee;
    const char* of_caller;
  };

  Caller(const char* caller, const char* callee, c10::ArrayRef<Argument> arguments);
  ~Caller();
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

 private:
  friend void fail(const char*, const char*, const std::string&, const std::string&);

  const char* caller_;
  const char* callee_;
  c10::ArrayRef<Argument> arguments_;
  const Caller* outer_;
};

/// "float32" for at::kFloat.
std::string dtype_name(at::ScalarType dtype);

/// What an error message says of a tensor: "float32 [2, 3]".
std::string describe(const at::Tensor& tensor);

/// Fails unless the tensor is defined and dense in memory.
void is_strided(const char* function, const char* argument, const at::Tensor& tensor);

/// Fails unless the tensor is of float64, float32, bfloat16 or float16.
void is_floating(const char* function, const char* argument, const at::Tensor& tensor);

void on_device(const char* function, const char* argument, const at::Tensor& tensor, at::Device device);

/// Fails where the tensor is on the meta device and the query, on `device`, is not.
void holds_numbers(const char* function, const char* argument, const at::Tensor& tensor, at::Device device);

/// Views a mask or bias as four dimensions that broadcast to the scores; a tensor of three dimensions is
/// [B, Lq, Lk] for a query of three dimensions and [H, Lq, Lk] for one of four. Fails where it does not
/// broadcast.
at::Tensor broadcastable(const char* function, const char* argument, const at::Tensor& tensor,
                         const ScoreShape& shape, int64_t query_dim);

/// Of what `broadcastable` gave, or of a query, the rows of `shape` that are written out.
at::Tensor rows_of(const at::Tensor& tensor, const ScoreShape& shape);

}  // namespace checks
}  // namespace attend
