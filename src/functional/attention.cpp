#include "reference/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randint.h>
#include <attend/attention.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cmath>
#include <limits>

#include "autograd/attention.h"
#include "autograd/chunked_reference.h"
#include "autograd/sdpa.h"
#include "core/attention_call.h"
#include "core/inputs.h"
#include "functional/backend.h"
#include "functional/mask/check.h"
#include "functional/score_mod/check.h"
#include "reference/sinks.h"

namespace attend {

using checks::fail;

at::Tensor draw_seed(at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return at::randint(std::numeric_limits<int64_t>::max(), {1}, options);
}

namespace {

/// Fails where the scale is not a number of the type that the scores are computed in.
void check_scale(const char* function, double scale, at::ScalarType dtype) {
  const bool is_double = dtype == at::kDouble;
  const double largest = is_double ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  if (!(std::abs(scale) <= largest)) {
    fail(function, "scale", c10::str("a finite number in the range of ", is_double ? "float64" : "float32"),
         c10::str(scale));
  }
}

const char* name_of(Weighting weighting) {
  switch (weighting) {
    case Weighting::sigmoid:
      return "sigmoid";
    case Weighting::relu:
      return "relu";
    case Weighting::softmax:
      break;
  }
  return "softmax";
}

}  // namespace

AttentionCall checked_call(const char* function, const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, const AttentionParams& params) {
  check_inputs(function, query, key, value);
  if (!(params.dropout_p >= 0 && params.dropout_p <= 1)) {
    fail(function, "dropout_p", "a probability in [0, 1]", c10::str(params.dropout_p));
  }
  if (params.weighting < Weighting::softmax || params.weighting > Weighting::relu) {
    fail(function, "weighting", "softmax, sigmoid or relu", c10::str(static_cast<int64_t>(params.weighting)));
  }
  if (params.backend < Backend::automatic || params.backend > Backend::reference) {
    fail(function, "backend", "automatic, fused, reference or sdpa",
         c10::str(static_cast<int64_t>(params.backend)));
  }
  const double scale = params.scale.value_or(1 / std::sqrt(static_cast<double>(query.size(-1))));
  check_scale(function, scale, query.scalar_type());

  AttentionCall call{with_heads(query), with_heads(key), with_heads(value), params.mask, params.score_mod,
                     params.weighting,  scale,           params.dropout_p,  0,           query.dim()};
  check_score_mod(function, call.score_mod, call.shape(), query);
  check_mask(function, call.mask, call.shape(), query.dim(), query.device());
  if (params.sinks.defined()) {
    check_sinks(function, params.sinks, call);
    if (call.weighting != Weighting::softmax) {
      fail(function, "weighting", "softmax, whose denominator sinks join", name_of(call.weighting));
    }
    call.sinks = params.sinks;
  }
  return call;
}

namespace {

AttentionWithLse run_on(Backend backend, const AttentionCall& call) {
  switch (backend) {
    case Backend::fused:
      return autograd::attention(call);
    case Backend::sdpa:
      return {autograd::sdpa(call), {}};
    default:
      return goes_in_chunks(call) ? autograd::reference_in_chunks(call) : reference::attention(call);
  }
}

/// A call by the backend for it.
AttentionWithLse run(const char* function, AttentionCall call, Backend asked) {
  // The dtype is the tensors' own, also where autocast would choose another for ATen's operations.
  const c10::impl::ExcludeDispatchKeyGuard exact(c10::autocast_dispatch_keyset);
  const auto backend = choose_backend(function, call, asked);
  if (call.dropout_p > 0) {
    call.dropout_seed = static_cast<uint64_t>(draw_seed(call.query.device()).item<int64_t>());
  }
  if (!call.sinks.defined()) return run_on(backend, call);
  call.wants_logsumexp = true;
  return with_sinks(run_on(backend, call), call.sinks);
}

}  // namespace

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const AttentionParams& params) {
  const auto result = run("attention", checked_call("attention", query, key, value, params), params.backend);
  return without_heads(result.output, query.dim());
}

AttentionWithLse attention_with_lse(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                    const AttentionParams& params) {
  constexpr auto kFunction = "attention_with_lse";
  if (params.weighting != Weighting::softmax) {
    fail(kFunction, "weighting", "softmax, which alone has a logsumexp", name_of(params.weighting));
  }
  auto call = checked_call(kFunction, query, key, value, params);
  call.wants_logsumexp = true;
  const auto result = run(kFunction, call, params.backend);
  return {without_heads(result.output, query.dim()), without_heads(result.logsumexp, query.dim())};
}

Explanation explain(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const AttentionParams& params) {
  return explain_backend(checked_call("explain", query, key, value, params), params.backend);
}

at::Tensor attention_weights(const at::Tensor& query, const at::Tensor& key, const AttentionParams& params) {
  auto call = checked_call("attention_weights", query, key, /*value=*/key, params);
  auto weights = reference::attention_weights(call);
  if (call.sinks.defined()) {
    call.wants_logsumexp = true;
    const auto factors = sink_factors(reference::attention(call).logsumexp, call.sinks);
    weights = (weights * factors).to(weights.scalar_type());
  }
  return without_heads(weights, call.query_dim);
}

}  // namespace attend
