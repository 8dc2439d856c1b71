#include "reference/attention.h"

#include <ATen/ops/randint.h>
#include <attend/attention.h>

#include <cmath>
#include <limits>

#include "attention_call.h"
#include "autograd/attention.h"
#include "backend.h"
#include "inputs.h"
#include "mask_node.h"
#include "score_mod_node.h"

namespace attend {
namespace {

using checks::fail;

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
