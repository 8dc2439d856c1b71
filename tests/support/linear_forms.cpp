#include "linear_forms.h"

#include <cmath>

#include "reference/linear_attention.h"
#include "reference/random_features.h"

namespace attend::testing {
namespace {

LinearAttentionCall call_of(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const LinearAttentionParams& params) {
  const bool is_random = params.feature_map == FeatureMap::random_features;
  const bool has_unit_scale = params.normalize && !is_random;
  const auto wide = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(compute_type(query)) : tensor;
  };
  return {
      .query = query,
      .key = key,
      .value = value,
      .feature_map = params.feature_map,
      .normalize = params.normalize,
      .scale = params.scale.value_or(has_unit_scale ? 1 : 1 / std::sqrt(static_cast<double>(query.size(-1)))),
      .log_decay = wide(params.log_decay),
      .beta = wide(params.beta),
      .initial_state = wide(params.initial_state),
      .key_lengths = params.key_lengths.defined() ? params.key_lengths.to(at::kLong).clone() : at::Tensor()};
}

LinearAttentionResult recurrent(const LinearAttentionCall& call, bool is_causal) {
  if (is_causal) return reference::linear_attention_recurrent(call);
  auto without_queries = call;
  without_queries.query = call.query.slice(2, 0, 0);
  const auto state = reference::linear_attention_recurrent(without_queries).final_state;
  const auto read = at::matmul(reference::feature_map(call.query, call.feature_map), state);
  return {reference::normalized(read, call.scale, call.normalize).to(call.query.scalar_type()), state};
}

/// Returns the logarithm of the unit of the state that each query reads.
at::Tensor log_query_units(const at::Tensor& log_units, int64_t queries, bool is_causal) {
  const int64_t keys = log_units.size(2) - 1;
  if (!is_causal) return log_units.slice(2, keys).unsqueeze(-1);
  const auto last_key = at::arange(keys - queries, keys, at::kLong);
  return log_units.index_select(2, at::clamp_min(last_key + 1, 0)).unsqueeze(-1);
}

LinearAttentionResult recurrent_random_features(const LinearAttentionCall& call, const at::Tensor& projection,
                                                bool is_causal) {
  const auto [features, log_units] = reference::stabilized_random_features(call, projection, is_causal);
  auto result = recurrent(features, is_causal);
  if (!call.normalize) {
    const auto units = log_query_units(log_units, call.query.size(2), is_causal);
    result.output = reference::times_exp(result.output, units);
  }
  const auto final_unit = log_units.slice(2, call.key.size(2)).unsqueeze(-1);
  return {result.output.to(call.query.scalar_type()), reference::times_exp(result.final_state, final_unit)};
}

}  // namespace

LinearAttentionResult linear_attention_as(LinearForm form, const at::Tensor& query, const at::Tensor& key,
                                          const at::Tensor& value, LinearAttentionParams params) {
  if (form == LinearForm::recurrent) {
    const auto call = call_of(query, key, value, params);
    return params.feature_map == FeatureMap::random_features
               ? recurrent_random_features(call, params.projection, params.is_causal)
               : recurrent(call, params.is_causal);
  }
  params.backend = form == LinearForm::fused     ? Backend::fused
                   : form == LinearForm::chunked ? Backend::reference
                                                 : Backend::automatic;
  return linear_attention(query, key, value, params);
}

}  // namespace attend::testing
