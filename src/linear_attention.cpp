#include "reference/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/matmul.h>
#include <attend/linear_attention.h>

#include <string>

#include "autograd/linear_attention.h"
#include "inputs.h"
#include "linear_attention_arguments.h"
#include "random_features.h"
#include "tangents.h"

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

LinearAttentionResult run(const LinearAttentionCall& call, LinearForm form) {
  if (form == LinearForm::recurrent) return reference::linear_attention_recurrent(call);
  if (form == LinearForm::chunked) return reference::linear_attention_chunked(call);
  const auto refusal = fused_refusal(call);
  if (refusal.empty()) return autograd::linear_attention(call);
  if (form == LinearForm::fused) {
    checks::fail(kFunction, "form", "one that can serve the call", c10::str("fused, which can't: ", refusal));
  }
  return reference::linear_attention_chunked(call);
}

/// Every query reads the state after the last key.
LinearAttentionResult run_not_causal(LinearAttentionCall call, LinearForm form) {
  const auto query = call.query;
  call.query = query.slice(2, 0, 0);
  const auto state = run(call, form).final_state;
  const auto read = at::matmul(reference::feature_map(query, call.feature_map), state);
  return {reference::normalized(read, call.scale, call.normalize).to(query.scalar_type()), state};
}

/// The call on the features of its queries and keys, between states of features that are not lowered.
LinearAttentionResult run_random_features(LinearAttentionCall call, const LinearAttentionParams& params) {
  const auto dtype = call.query.scalar_type();
  const auto type = call.compute_type();
  const auto features = random_features(call.query.to(type), call.key.to(type), params.projection.to(type),
                                        call.key_lengths, call.scale, call.normalize, !call.beta.defined());
  const int64_t group = call.key.size(1) == 0 ? 1 : call.query.size(1) / call.key.size(1);
  const auto lowered = features.log_lowered.repeat_interleave(group, 1);
  call.query = features.query;
  call.key = features.key;
  call.value = call.value.to(type);
  call.feature_map = FeatureMap::identity;
  call.scale = 1;
  if (call.initial_state.defined()) call.initial_state = call.initial_state * at::exp(-lowered);
  auto result = params.is_causal ? run(call, params.form) : run_not_causal(call, params.form);
  if (!call.normalize) result.output = result.output * at::exp(lowered);
  return {result.output.to(dtype), result.final_state * at::exp(lowered)};
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
