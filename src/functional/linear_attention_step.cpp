#include <ATen/core/grad_mode.h>
#include <ATen/ops/exp.h>
#include <attend/linear_attention.h>

#include "autograd/linear_attention.h"
#include "core/gradients.h"
#include "core/inputs.h"
#include "functional/linear_attention_arguments.h"
#include "reference/linear_attention.h"
#include "reference/random_features.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

constexpr auto kFunction = "linear_attention_step";

void check_one_token(const char* argument, const at::Tensor& tensor) {
  if (tensor.size(-2) != 1) fail(kFunction, argument, "a length of 1", describe(tensor));
}

void check_absent(const char* argument, const at::Tensor& tensor) {
  if (tensor.defined()) fail(kFunction, argument, "none", describe(tensor));
}

void check_state(const at::Tensor& state, const at::Tensor& query, const CheckedLinearCall& checked) {
  check_linear_state(kFunction, "state", state, query, checked.sizes, checked.call.normalize);
  const auto type = checked.call.compute_type();
  if (state.is_neg() || state._is_zerotensor()) {
    fail(kFunction, "state", "values in memory as they are", "a negated view or zeros that have no memory");
  }
  if (state.scalar_type() != type || !state.is_contiguous()) {
    fail(kFunction, "state", c10::str("a contiguous tensor of dtype ", checks::dtype_name(type)),
         c10::str(describe(state), " of strides ", state.strides()));
  }
}

void check_no_gradient(const char* argument, const at::Tensor& tensor) {
  if (!tensor.defined()) return;
  if (has_tangent(tensor)) {
    fail(kFunction, argument, "a tensor that needs no gradient",
         c10::str(describe(tensor), " with a forward-mode tangent"));
  }
  if (at::GradMode::is_enabled() && tensor.requires_grad()) {
    fail(kFunction, argument, "a tensor that needs no gradient",
         c10::str(describe(tensor), " that requires one"));
  }
}

/// The call on the features of its query and key.
void map_random_features(LinearAttentionCall& call, const at::Tensor& projection) {
  const auto type = call.compute_type();
  call.query = at::exp(log_random_features_of_query(call, projection.to(type)));
  call.key = at::exp(log_random_features(call.key.to(type), projection.to(type), call.scale));
  call.value = call.value.to(type);
  call.feature_map = FeatureMap::identity;
  call.scale = 1;
}

}  // namespace

at::Tensor linear_attention_step(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                 at::Tensor& state, const LinearAttentionParams& params) {
  auto checked = check_linear_attention(kFunction, query, key, value, params);
  check_one_token("query", query);
  check_one_token("key", key);
  check_absent("initial_state", params.initial_state);
  check_absent("key_lengths", params.key_lengths);
  check_state(state, query, checked);
  check_no_gradient("query", query);
  check_no_gradient("key", key);
  check_no_gradient("value", value);
  check_no_gradient("state", state);
  check_no_gradient("log_decay", params.log_decay);
  check_no_gradient("beta", params.beta);
  check_no_gradient("projection", params.projection);

  const at::NoGradGuard no_grad;
  auto& call = checked.call;
  if (params.feature_map == FeatureMap::random_features) map_random_features(call, params.projection);
  const auto four = checked.sizes.query_dim == 4   ? state
                    : checked.sizes.query_dim == 3 ? state.unsqueeze(1)
                                                   : state.unsqueeze(0).unsqueeze(0);
  at::Tensor output;
  if (query.device().is_cpu()) {
    output = autograd::linear_attention_step(call, four);
  } else {
    call.initial_state = four;
    const auto result = reference::linear_attention_recurrent(call);
    four.copy_(result.final_state);
    output = result.output;
  }
  return without_heads(output.to(query.scalar_type()), query.dim());
}

}  // namespace attend
