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

LinearAttentionOptions completed(LinearAttentionOptions options) {
  const int64_t per_head =
      channels_per_head(kLinearAttention, options.embed_dim(), options.num_heads(), options.head_dim() == 0);
  fill_in_width(kLinearAttention, "head_dim", options.head_dim(), per_head);
  fill_in_width(kLinearAttention, "head_v_dim", options.head_v_dim(), options.head_dim());
  if (has_random_features(options)) {
    fill_in_width(kLinearAttention, "num_features", options.num_features(), 2 * options.head_dim());
  } else if (options.num_features() != 0) {
    checks::fail(kLinearAttention, "num_features", "0 without random_features",
                 c10::str(options.num_features()));
  }
  return options;
}

}  // namespace

LinearAttentionImpl::LinearAttentionImpl(const LinearAttentionOptions& options_)
    : options(completed(options_)) {
  reset();
}

void LinearAttentionImpl::reset() {
  const int64_t width = options.embed_dim(), heads = options.num_heads(), d = options.head_dim(),
                d_v = options.head_v_dim();
  q_proj = register_module("q_proj", make_linear(width, heads * d, options.bias()));
  k_proj = register_module("k_proj", make_linear(width, heads * d, options.bias()));
  v_proj = register_module("v_proj", make_linear(width, heads * d_v, options.bias()));
  o_proj = register_module("o_proj", make_linear(heads * d_v, width, options.bias()));
  if (has_random_features(options)) {
    projection = register_buffer("projection", orthogonal_projection(options.num_features(), d));
  }
}

void LinearAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::LinearAttention(embed_dim=" << options.embed_dim()
         << ", num_heads=" << options.num_heads() << ", head_dim=" << options.head_dim()
         << ", head_v_dim=" << options.head_v_dim() << ")";
}

torch::Tensor LinearAttentionImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check_input(kLinearAttention, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  if (state != nullptr && !options.is_causal()) {
    checks::fail(kLinearAttention, "state", "none where is_causal is not set", "a state");
  }
  const int64_t features = projection.defined() ? projection.size(0) : options.head_dim();
  check_state(kLinearAttention, state, input,
              {options.num_heads(), features, options.head_v_dim() + (options.normalize() ? 1 : 0)});
  const auto query = in_heads(q_proj(input), options.num_heads()),
             key = in_heads(k_proj(input), options.num_heads()),
             value = in_heads(v_proj(input), options.num_heads());
  const LinearAttentionParams params{
      .feature_map = options.feature_map(), .projection = projection, .normalize = options.normalize()};
  const auto heads = options.is_causal() ? recur(query, key, value, params, state)
                                         : linear_attention(query, key, value, params).output;
  return o_proj(out_of_heads(heads, input));
}

}  // namespace attend::nn
