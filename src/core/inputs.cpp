#include "core/inputs.h"

#include "core/checks.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

void check_input(const char* function, const char* argument, const at::Tensor& tensor,
                 const at::Tensor& query) {
  checks::check_strided(function, argument, tensor);
  checks::check_floating(function, argument, tensor);
  if (tensor.scalar_type() != query.scalar_type()) {
    fail(function, argument, c10::str("the query's dtype ", checks::dtype_name(query.scalar_type())),
         describe(tensor));
  }
  checks::check_device(function, argument, tensor, query.device());
  if (tensor.dim() != query.dim()) {
    fail(function, argument, c10::str("the query's number of dimensions, ", query.dim()), describe(tensor));
  }
}

}  // namespace

at::Tensor materialized(const at::Tensor& tensor) {
  if (tensor._is_zerotensor()) return tensor.clone();
  return tensor.is_neg() ? tensor.resolve_neg() : tensor;
}

at::Tensor with_heads(const at::Tensor& tensor) {
  auto values = materialized(tensor);
  if (values.dim() == 4) return values;
  return values.dim() == 3 ? values.unsqueeze(1) : values.unsqueeze(0).unsqueeze(0);
}

at::Tensor without_heads(const at::Tensor& tensor, int64_t query_dim) {
  if (query_dim == 4) return tensor;
  return query_dim == 3 ? tensor.select(1, 0) : tensor.select(0, 0).select(0, 0);
}

void check_inputs(const char* function, const at::Tensor& query, const at::Tensor& key,
                  const at::Tensor& value) {
  checks::check_strided(function, "query", query);
  checks::check_floating(function, "query", query);
  if (query.dim() < 2 || query.dim() > 4) {
    fail(function, "query", "[B, H, L, D], [B, L, D] or [L, D]", describe(query));
  }
  check_input(function, "key", key, query);
  check_input(function, "value", value, query);
  if (query.sym_size(-1) < 1) fail(function, "query", "a last dimension of at least 1", describe(query));
  if (key.sym_size(-1) != query.sym_size(-1)) {
    fail(function, "key", c10::str("the query's last dimension, ", query.sym_size(-1)), describe(key));
  }
  if (value.sym_size(-2) != key.sym_size(-2)) {
    fail(function, "value", c10::str("the key's length, ", key.sym_size(-2)), describe(value));
  }
  if (query.dim() == 2) return;
  if (key.sym_size(0) != query.sym_size(0)) {
    fail(function, "key", c10::str("the query's batch size, ", query.sym_size(0)), describe(key));
  }
  if (value.sym_size(0) != query.sym_size(0)) {
    fail(function, "value", c10::str("the query's batch size, ", query.sym_size(0)), describe(value));
  }
  if (query.dim() == 3) return;
  const auto heads = query.sym_size(1), kv_heads = key.sym_size(1);
  if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0) {
    fail(function, "key", c10::str("a number of heads that divides the query's ", heads), describe(key));
  }
  if (value.sym_size(1) != kv_heads) {
    fail(function, "value", c10::str("the key's number of heads, ", kv_heads), describe(value));
  }
}

}  // namespace attend
