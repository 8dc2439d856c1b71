#include "reference/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/matmul.h>
#include <attend/linear_attention.h>

#include <string>

#include "autograd/linear_attention.h"
#include "core/gradients.h"
#include "core/inputs.h"
#include "functional/fused.h"
#include "functional/linear_attention_arguments.h"
#include "reference/random_features.h"

namespace attend {
namespace {

constexpr const char* kFunction = "linear_attention";

// ---- who computes a call

/// Why the fused kernels can't serve a call; empty where they can.
std::string fused_refusal(const LinearAttentionCall& call) {
  if (!call.query.device().is_cpu()) return "the tensors are not on the CPU";
  for (const auto& tensor :
       {call.query, call.key, call.value, call.log_decay, call.beta, call.initial_state}) {
    if (!tensor.defined()) continue;
    if (has_tangent(tensor)) return "a tensor carries a forward-mode tangent";
    if (at::isTensorSubclassLike(tensor)) return "a tensor is of a subclass or under a functional transform";
  }
  return {};
}

bool is_fused(const LinearAttentionCall& call, LinearForm form) {
  if (form == LinearForm::recurrent || form == LinearForm::chunked) return false;
  const auto refusal = fused_refusal(call);
  if (!refusal.empty() && form == LinearForm::fused) {
    checks::fail(kFunction, "form", "one that can serve the call", c10::str("fused, which can't: ", refusal));
  }
  return refusal.empty();
}

LinearAttentionResult run(const LinearAttentionCall& call, LinearForm form) {
  if (is_fused(call, form)) return autograd::linear_attention(call);
  return form == LinearForm::recurrent ? reference::linear_attention_recurrent(call)
                                       : reference::linear_attention_chunked(call);
}

/// Every query reads the state after the last key.
LinearAttentionResult run_not_causal(const LinearAttentionCall& call, LinearForm form) {
  const auto state = run(state_call(call), form).final_state;
  const auto reading = read_call(call, state);
  if (is_fused(reading, form)) return {autograd::linear_attention(reading).output, state};
  const auto read = at::matmul(reference::feature_map(call.query, call.feature_map), state);
  return {reference::normalized(read, call.scale, call.normalize).to(call.query.scalar_type()), state};
}

/// [B, H, Lq, 1]: the unit of the state that each query reads, of those that each key leaves it in.
at::Tensor log_units_of_queries(const at::Tensor& log_units, int64_t queries, bool is_causal) {
  const int64_t keys = log_units.size(2) - 1;
  if (!is_causal) return log_units.slice(2, keys).unsqueeze(-1);
  const auto last_key = at::arange(keys - queries, keys, log_units.options().dtype(at::kLong));
  return log_units.index_select(2, at::clamp_min(last_key + 1, 0)).unsqueeze(-1);
}

/// The call on the features of its queries and keys, between states of the features themselves.
LinearAttentionResult run_random_features(const LinearAttentionCall& call,
                                          const LinearAttentionParams& params) {
  const auto [features, log_units] = random_features_call(call, params.projection, params.is_causal);
  auto result = params.is_causal ? run(features, params.form) : run_not_causal(features, params.form);
  if (!call.normalize) {
    const auto of_queries = log_units_of_queries(log_units, call.query.size(2), params.is_causal);
    result.output = times_exp(result.output, of_queries);
  }
  return {result.output.to(call.query.scalar_type()),
          times_exp(result.final_state, log_units.slice(2, call.key.size(2)).unsqueeze(-1))};
}

}  // namespace

LinearAttentionResult linear_attention(const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const LinearAttentionParams& params) {
  const auto [call, sizes] = check_linear_attention(kFunction, query, key, value, params);
  const auto result = params.feature_map == FeatureMap::random_features ? run_random_features(call, params)
                      : params.is_causal                                ? run(call, params.form)
                                                                        : run_not_causal(call, params.form);
  return {without_heads(result.output, sizes.query_dim), without_heads(result.final_state, sizes.query_dim)};
}

}  // namespace attend
