#include "reference/attention.h"

#include <ATen/ops/randint.h>
#include <attend/attention.h>

#include <cmath>
#include <limits>

#include "attention_call.h"
#include "autograd/attention.h"
#include "backend.h"
#include "mask_node.h"
#include "score_mod_node.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

void check_input(const char* function, const char* argument, const at::Tensor& tensor,
                 const at::Tensor& query) {
  checks::is_strided(function, argument, tensor);
  checks::is_floating(function, argument, tensor);
  if (tensor.scalar_type() != query.scalar_type()) {
    fail(function, argument, c10::str("the query's dtype ", checks::dtype_name(query.scalar_type())),
         describe(tensor));
  }
  checks::on_device(function, argument, tensor, query.device());
  if (tensor.dim() != query.dim()) {
    fail(function, argument, c10::str("the query's number of dimensions, ", query.dim()), describe(tensor));
  }
}

/// Views [B, L, D] as [B, 1, L, D] and [L, D] as [1, 1, L, D].
at::Tensor with_heads(const at::Tensor& tensor) {
  if (tensor.dim() == 4) return tensor;
  return tensor.dim() == 3 ? tensor.unsqueeze(1) : tensor.unsqueeze(0).unsqueeze(0);
}

/// The reverse of `with_heads`.
at::Tensor without_heads(const at::Tensor& tensor, int64_t query_dim) {
  if (query_dim == 4) return tensor;
  return query_dim == 3 ? tensor.select(1, 0) : tensor.select(0, 0).select(0, 0);
}

void check_inputs(const char* function, const at::Tensor& query, const at::Tensor& key,
                  const at::Tensor& value) {
  checks::is_strided(function, "query", query);
  checks::is_floating(function, "query", query);
  if (query.dim() < 2 || query.dim() > 4) {
    fail(function, "query", "[B, H, L, D], [B, L, D] or [L, D]", describe(query));
  }
  check_input(function, "key", key, query);
  check_input(function, "value", value, query);
  if (query.size(-1) < 1) fail(function, "query", "a last dimension of at least 1", describe(query));
  if (key.size(-1) != query.size(-1)) {
    fail(function, "key", c10::str("the query's last dimension, ", query.size(-1)), describe(key));
  }
  if (value.size(-2) != key.size(-2)) {
    fail(function, "value", c10::str("the key's length, ", key.size(-2)), describe(value));
  }
  if (query.dim() == 2) return;
  if (key.size(0) != query.size(0)) {
    fail(function, "key", c10::str("the query's batch size, ", query.size(0)), describe(key));
  }
  if (value.size(0) != query.size(0)) {
    fail(function, "value", c10::str("the query's batch size, ", query.size(0)), describe(value));
  }
  if (query.dim() == 3) return;
  const int64_t heads = query.size(1), kv_heads = key.size(1);
  if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0) {
    fail(function, "key", c10::str("a number of heads that divides the query's ", heads), describe(key));
  }
  if (value.size(1) != kv_heads) {
    fail(function, "value", c10::str("the key's number of heads, ", kv_heads), describe(value));
  }
}

uint64_t draw_seed(at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return static_cast<uint64_t>(
      at::randint(std::numeric_limits<int64_t>::max(), {1}, options).item<int64_t>());
}

AttentionCall checked(const char* function, const at::Tensor& query, const at::Tensor& key,
                      const at::Tensor& value, const AttentionParams& params) {
  check_inputs(function, query, key, value);
  if (!(params.dropout_p >= 0 && params.dropout_p <= 1)) {
    fail(function, "dropout_p", "a probability in [0, 1]", c10::str(params.dropout_p));
  }
  const double scale = params.scale.value_or(1 / std::sqrt(static_cast<double>(query.size(-1))));
  if (!std::isfinite(scale)) fail(function, "scale", "a finite number", c10::str(scale));

  AttentionCall call{with_heads(query), with_heads(key), with_heads(value), params.mask, params.score_mod,
                     params.weighting,  scale,           params.dropout_p,  0,           query.dim()};
  if (call.score_mod.defined()) call.score_mod.node()->check(function, call.shape(), query);
  if (call.mask.defined()) call.mask.node()->check(function, call.shape(), query.dim(), query.device());
  return call;
}

struct ChosenCall {
  AttentionCall call;
  bool is_fused;
};

/// A call that is going to be made.
ChosenCall prepared(const char* function, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value, const AttentionParams& params) {
  auto call = checked(function, query, key, value, params);
  const bool is_fused = choose_backend(function, call, params.backend) == Backend::fused;
  if (call.dropout_p > 0) call.dropout_seed = draw_seed(query.device());
  return {call, is_fused};
}

}  // namespace

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const AttentionParams& params) {
  const auto [call, is_fused] = prepared("attention", query, key, value, params);
  const auto output = is_fused ? autograd::attention(call).output : reference::attention(call);
  return without_heads(output, call.query_dim);
}

AttentionWithLse attention_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                    const AttentionParams& params) {
  if (params.weighting != Weighting::softmax) {
    fail("attention_with_lse", "weighting", "softmax, which alone has a logsumexp", "another weighting");
  }
  const auto [call, is_fused] = prepared("attention_with_lse", query, key, value, params);
  const auto result = is_fused ? autograd::attention(call) : reference::attention_with_lse(call);
  return {without_heads(result.output, call.query_dim), without_heads(result.logsumexp, call.query_dim)};
}

Explanation explain(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const AttentionParams& params) {
  return explain_backend(checked("explain", query, key, value, params), params.backend);
}

at::Tensor attention_weights(const at::Tensor& query, const at::Tensor& key, const AttentionParams& params) {
  const auto call = checked("attention_weights", query, key, /*value=*/key, params);
  return without_heads(reference::attention_weights(call), call.query_dim);
}

}  // namespace attend
