#include <ATen/TensorOperators.h>
#include <attend/nn/linear_attention.h>

#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"
#include "nn/linear_mixer.h"

namespace attend::nn {
namespace {

constexpr auto kLinearAttention = "nn::LinearAttention";

bool has_random_features(const LinearAttentionOptions& options) {
  return options.feature_map() == FeatureMap::random_features;
}

LinearAttentionOptions resolved(LinearAttentionOptions options) {
  const int64_t per_head =
      channels_per_head(kLinearAttention, options.embed_dim(), options.num_heads(), options.head_dim() == 0);
  resolve_width(kLinearAttention, "head_dim", options.head_dim(), per_head);
  resolve_width(kLinearAttention, "value_head_dim", options.value_head_dim(), options.head_dim());
  if (has_random_features(options)) {
    resolve_width(kLinearAttention, "num_features", options.num_features(), 2 * options.head_dim());
  } else if (options.num_features() != 0) {
    checks::fail(kLinearAttention, "num_features", "0 without FeatureMap::random_features",
                 c10::str(options.num_features()));
  }
  return options;
}

}  // namespace

LinearAttentionImpl::LinearAttentionImpl(const LinearAttentionOptions& options_)
    : options(resolved(options_)) {
  reset();
}

void LinearAttentionImpl::reset() {
  const int64_t width = options.embed_dim(), keys = options.num_heads() * options.head_dim(),
                values = options.num_heads() * options.value_head_dim();
  q_proj = register_module("q_proj", make_linear(width, keys, options.bias()));
  k_proj = register_module("k_proj", make_linear(width, keys, options.bias()));
  v_proj = register_module("v_proj", make_linear(width, values, options.bias()));
  o_proj = register_module("o_proj", make_linear(values, width, options.bias()));
  if (has_random_features(options)) {
    projection =
        register_buffer("projection", orthogonal_projection(options.num_features(), options.head_dim()));
  }
}

void LinearAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::LinearAttention(embed_dim=" << options.embed_dim()
         << ", num_heads=" << options.num_heads() << ", head_dim=" << options.head_dim()
         << ", value_head_dim=" << options.value_head_dim() << ")";
}

void LinearAttentionImpl::check(const torch::Tensor& input, const RecurrentState* state) const {
  check_projections(kLinearAttention, *this);
  check_option(kLinearAttention, "options.feature_map", projection.defined() == has_random_features(options));
  check_input(kLinearAttention, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  if (state != nullptr && !options.is_causal()) {
    checks::fail(kLinearAttention, "state", "none unless is_causal is true", "a state");
  }
  const int64_t features = projection.defined() ? projection.size(0) : options.head_dim();
  check_state(kLinearAttention, state, input,
              {options.num_heads(), features, options.value_head_dim() + (options.normalize() ? 1 : 0)});
}

torch::Tensor LinearAttentionImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check(input, state);
  const auto query = split_heads(q_proj(input), options.num_heads()),
             key = split_heads(k_proj(input), options.num_heads()),
             value = split_heads(v_proj(input), options.num_heads());
  const LinearAttentionParams params{
      .feature_map = options.feature_map(), .projection = projection, .normalize = options.normalize()};
  const auto heads = options.is_causal() ? recurrent_attention(query, key, value, params, state)
                                         : linear_attention(query, key, value, params).output;
  return o_proj(merge_heads(heads, input));
}

}  // namespace attend::nn
