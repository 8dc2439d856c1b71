#include "core/checks.h"

#include <ATen/ops/unsqueeze.h>
#include <attend/error.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include "core/error_context.h"

namespace attend::checks {

void fail(const char* function, const char* argument, const std::string& expected, const std::string& got) {
  throw Error(function, argument, expected, got);
}

void rethrow_in(const char* module, const Part& part, c10::ArrayRef<ArgumentName> names, const Error& error) {
  std::string argument = error.argument();
  for (const auto& name : names) {
    if (error.argument() == name.inner) argument = name.outer;
  }
  throw error.raised_in(module, part.index < 0 ? part.name : c10::str(part.name, ".", part.index), argument);
}

std::string dtype_name(at::ScalarType dtype) { return std::string(c10::getDtypeNames(dtype).first); }

std::string describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "an undefined tensor";
  return c10::str(dtype_name(tensor.scalar_type()), " ", tensor.sym_sizes());
}

void check_strided(const char* function, const char* argument, const at::Tensor& tensor) {
  if (!tensor.defined()) fail(function, argument, "a tensor", describe(tensor));
  if (tensor.layout() != at::kStrided || tensor.is_nested()) {
    fail(function, argument, "a dense (strided) tensor",
         tensor.is_nested() ? "a nested tensor" : c10::str("layout ", tensor.layout()));
  }
}

void check_floating(const char* function, const char* argument, const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
    case at::kFloat:
    case at::kBFloat16:
    case at::kHalf:
      return;
    default:
      fail(function, argument, "dtype float64, float32, bfloat16 or float16", describe(tensor));
  }
}

void check_device(const char* function, const char* argument, const at::Tensor& tensor, at::Device device) {
  if (tensor.device() != device) {
    fail(function, argument, c10::str("a tensor on the query's device ", device), c10::str(tensor.device()));
  }
}

void check_has_data(const char* function, const char* argument, const at::Tensor& tensor, at::Device device) {
  if (tensor.is_meta() && !device.is_meta()) {
    fail(function, argument, c10::str("a tensor with data, since the query is on ", device),
         c10::str(describe(tensor), " on meta"));
  }
}

at::Tensor with_score_dims(const at::Tensor& tensor, int64_t query_dim) {
  // A query of three dimensions has no head dimension, and a query of two dimensions has no batch dimension
  // either.
  const bool without_heads = query_dim == 3 && tensor.dim() == 3;
  auto aligned = without_heads ? tensor.unsqueeze(1) : tensor;
  while (aligned.dim() < 4) aligned = aligned.unsqueeze(0);
  return aligned;
}

at::Tensor broadcastable(const char* function, const char* argument, const at::Tensor& tensor,
                         const ScoreShape& shape, int64_t query_dim) {
  auto aligned = with_score_dims(tensor, query_dim);
  const std::array<int64_t, 4> sizes = {shape.batch, shape.heads, shape.queries, shape.keys};
  bool broadcasts = aligned.dim() == 4;
  for (size_t d = 0; broadcasts && d < 4; ++d) {
    const auto size = aligned.size(static_cast<int64_t>(d));
    broadcasts = size == 1 || size == sizes[d];
  }
  if (!broadcasts) {
    const auto scores = query_dim == 3   ? at::IntArrayRef({shape.batch, shape.queries, shape.keys}).vec()
                        : query_dim == 2 ? at::IntArrayRef({shape.queries, shape.keys}).vec()
                                         : at::IntArrayRef(sizes).vec();
    fail(function, argument, c10::str("a shape that broadcasts to the scores ", at::IntArrayRef(scores)),
         describe(tensor));
  }
  return aligned;
}

at::Tensor rows_of(const at::Tensor& tensor, const SymScoreShape& shape) {
  if (shape.rows == shape.queries || tensor.sym_size(2) == 1) return tensor;
  return tensor.slice_symint(2, shape.first_row, shape.first_row + shape.rows);
}

}  // namespace attend::checks
