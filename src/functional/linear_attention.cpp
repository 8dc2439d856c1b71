#include "reference/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/matmul.h>
#include <attend/linear_attention.h>

#include "autograd/linear_attention.h"
#include "core/exact_dtype.h"
#include "core/inputs.h"
#include "functional/backend.h"
#include "functional/linear_attention_arguments.h"
#include "functional/traced_kernels.h"
#include "reference/random_features.h"

namespace attend {
namespace {

LinearAttentionResult run_on(Backend backend, const LinearAttentionCall& call) {
  return backend == Backend::fused ? autograd::linear_attention(call)
                                   : reference::linear_attention_chunked(call);
}

/// Computes a call without causality: every query reads the state after the last key.
LinearAttentionResult run_not_causal(Backend backend, const LinearAttentionCall& call) {
  const auto state = run_on(backend, state_call(call)).final_state;
  if (backend == Backend::fused) return {run_on(backend, read_call(call, state)).output, state};
  return {reference::read_state(call, state), state};
}

LinearAttentionResult run(Backend backend, const LinearAttentionCall& call, bool is_causal) {
  return is_causal ? run_on(backend, call) : run_not_causal(backend, call);
}

/// Returns the logarithm of the unit of the state that each query reads, [B, H, Lq, 1].
at::Tensor log_query_units(const at::Tensor& log_units, int64_t queries, bool is_causal) {
  const int64_t keys = log_units.size(2) - 1;
  if (!is_causal) return log_units.slice(2, keys).unsqueeze(-1);
  const auto last_key = at::arange(keys - queries, keys, log_units.options().dtype(at::kLong));
  return log_units.index_select(2, at::clamp_min(last_key + 1, 0)).unsqueeze(-1);
}

/// Computes a call with the random features of its queries and keys. The initial and the final state are
/// those of the unscaled features.
LinearAttentionResult run_random_features(Backend backend, const LinearAttentionArguments& arguments) {
  const auto& call = arguments.call;
  const bool is_causal = arguments.is_causal;
  const auto [features, log_units] =
      reference::stabilized_random_features(call, arguments.projection, is_causal);
  auto result = run(backend, features, is_causal);
  if (!call.normalize) {
    result.output =
        reference::times_exp(result.output, log_query_units(log_units, call.query.size(2), is_causal));
  }
  const auto log_final_unit = log_units.slice(2, call.key.size(2)).unsqueeze(-1);
  return {result.output.to(call.query.scalar_type()),
          reference::times_exp(result.final_state, log_final_unit)};
}

}  // namespace

LinearAttentionResult linear_attention(const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const LinearAttentionParams& params) {
  constexpr auto kFunction = "linear_attention";
  const auto arguments = checked_arguments(kFunction, query, key, value, params);
  const ExactDtype exact;
  const auto backend = choose_backend(kFunction, arguments, params.backend);
  const auto result = params.feature_map == FeatureMap::random_features
                          ? run_random_features(backend, arguments)
                          : run(backend, arguments.call, arguments.is_causal);
  return {without_heads(result.output, query.dim()), without_heads(result.final_state, query.dim())};
}

Explanation explain_linear_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                     const LinearAttentionParams& params) {
  return explain_backend(checked_arguments("explain_linear_attention", query, key, value, params),
                         params.backend);
}

}  // namespace attend
