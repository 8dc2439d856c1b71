#include <ATen/core/grad_mode.h>
#include <attend/linear_attention.h>

#include "autograd/linear_attention.h"
#include "core/checks.h"
#include "core/exact_dtype.h"
#include "core/gradients.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "functional/backend.h"
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

void check_state(const at::Tensor& state, const at::Tensor& query,
                 const LinearAttentionArguments& arguments) {
  check_linear_state(kFunction, "state", state, query, arguments.sizes, arguments.call.normalize);
  const auto type = arguments.call.compute_type();
  if (torch_private::is_lazy(state)) {
    fail(kFunction, "state", "a materialized tensor", "a tensor with the negative bit set, or a ZeroTensor");
  }
  if (state.scalar_type() != type || !state.is_contiguous()) {
    fail(kFunction, "state", c10::str("a contiguous tensor of dtype ", checks::dtype_name(type)),
         c10::str(describe(state), " of strides ", state.strides()));
  }
}

void check_no_gradient(const char* argument, const at::Tensor& tensor) {
  if (has_tangent(tensor)) {
    fail(kFunction, argument, "a tensor that requires no gradient",
         c10::str(describe(tensor), " with a forward-mode tangent"));
  }
  if (any_needs_gradient(tensor)) {
    fail(kFunction, argument, "a tensor that requires no gradient",
         c10::str(describe(tensor), " that requires one"));
  }
}

/// Returns the state as [B, H, D, state_width], sharing memory.
at::Tensor state_with_heads(const at::Tensor& state, int64_t query_dim) {
  if (query_dim == 4) return state;
  return query_dim == 3 ? state.unsqueeze(1) : state.unsqueeze(0).unsqueeze(0);
}

/// Returns the output of a call of one token, and updates `state` in place.
at::Tensor step_on(Backend backend, LinearAttentionCall call, const at::Tensor& state) {
  if (backend == Backend::fused) return autograd::linear_attention_step(call, state);
  call.initial_state = state;
  const auto result = reference::linear_attention_recurrent(call);
  state.copy_(result.final_state);
  return result.output;
}

}  // namespace

at::Tensor linear_attention_step(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                 at::Tensor& state, const LinearAttentionParams& params) {
  const auto arguments = checked_arguments(kFunction, query, key, value, params);
  check_one_token("query", query);
  check_one_token("key", key);
  check_absent("initial_state", params.initial_state);
  check_absent("key_lengths", params.key_lengths);
  check_state(state, query, arguments);
  check_no_gradient("query", query);
  check_no_gradient("key", key);
  check_no_gradient("value", value);
  check_no_gradient("state", state);
  check_no_gradient("log_decay", params.log_decay);
  check_no_gradient("beta", params.beta);
  check_no_gradient("projection", params.projection);

  const at::NoGradGuard no_grad;
  const ExactDtype exact;
  const auto backend = choose_backend(kFunction, arguments, params.backend);
  const bool is_random = params.feature_map == FeatureMap::random_features;
  const auto call =
      is_random ? reference::random_features(arguments.call, params.projection) : arguments.call;
  const auto output = step_on(backend, call, state_with_heads(state, query.dim()));
  return without_heads(output.to(query.scalar_type()), query.dim());
}

}  // namespace attend
