#include "reference/attention.h"

#include <ATen/TensorOperators.h>
#include <attend/attention.h>

#include "autograd/attention.h"
#include "autograd/chunked_reference.h"
#include "autograd/sdpa.h"
#include "core/checks.h"
#include "core/exact_dtype.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "functional/attention_arguments.h"
#include "functional/backend.h"
#include "reference/sinks.h"

namespace attend {
namespace {

AttentionWithLse run_on(Backend backend, const AttentionCall& call) {
  switch (backend) {
    case Backend::fused:
      return autograd::attention(call);
    case Backend::sdpa:
      return {autograd::sdpa(call), {}};
    default:
      return autograd::chunked_reference(call);
  }
}

AttentionWithLse run(const char* function, AttentionCall call, Backend requested) {
  const ExactDtype exact;
  auto backend = choose_backend(function, call, requested);
  if (call.dropout_p > 0) {
    call.dropout_seed = draw_seed(call.query.device());
    // Under vmap, each slice may have a seed of its own, which only the reference can read.
    if (torch_private::is_subclass_like(call.dropout_seed)) {
      backend = choose_backend(function, call, requested);
    }
  }
  if (!call.sinks.defined()) return run_on(backend, call);
  call.wants_logsumexp = true;
  return reference::with_sinks(run_on(backend, call), call.sinks);
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
  if (params.weighting == Weighting::sigmoid || params.weighting == Weighting::relu) {
    checks::fail(kFunction, "weighting", "softmax, the only weighting with a logsumexp",
                 params.weighting == Weighting::sigmoid ? "sigmoid" : "relu");
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
  const ExactDtype exact;
  auto weights = reference::attention_weights(call);
  if (call.sinks.defined()) {
    call.wants_logsumexp = true;
    const auto factors = reference::sink_factors(reference::attention(call).logsumexp, call.sinks);
    weights = (weights * factors).to(weights.scalar_type());
  }
  return without_heads(weights, call.query_dim);
}

}  // namespace attend
