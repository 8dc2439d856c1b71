#include "reference/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/matmul.h>
#include <attend/linear_attention.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "autograd/linear_attention.h"
#include "inputs.h"
#include "linear_attention_call.h"
#include "random_features.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

constexpr const char* kFunction = "linear_attention";

/// The shapes that an argument may have, each with its name; sizes as the caller sees them.
struct Shape {
  const char* name;
  std::vector<int64_t> sizes;
};

void check_shape(const char* argument, const at::Tensor& tensor, const std::vector<Shape>& allowed) {
  std::string expected;
  for (const auto& shape : allowed) {
    if (tensor.sizes() == at::IntArrayRef(shape.sizes)) return;
    expected += c10::str(expected.empty() ? "" : " or ", shape.name, " = ", at::IntArrayRef(shape.sizes));
  }
  fail(kFunction, argument, expected, describe(tensor));
}

/// A tensor in the query's dtype or float32, on its device.
void check_floating(const char* argument, const at::Tensor& tensor, const at::Tensor& query) {
  checks::is_strided(kFunction, argument, tensor);
  checks::is_floating(kFunction, argument, tensor);
  if (tensor.scalar_type() != query.scalar_type() && tensor.scalar_type() != at::kFloat) {
    fail(kFunction, argument,
         c10::str("the query's dtype ", checks::dtype_name(query.scalar_type()), " or float32"),
         describe(tensor));
  }
  checks::on_device(kFunction, argument, tensor, query.device());
}

/// The sizes of a call, as its tensors of four dimensions have them.
struct Sizes {
  int64_t batch, heads, keys, features, state_width;
  int64_t query_dim;

  /// [B, H, rest...] as the caller sees it.
  std::vector<int64_t> per_head(std::vector<int64_t> rest) const {
    std::vector<int64_t> sizes;
    if (query_dim > 2) sizes.push_back(batch);
    if (query_dim > 3) sizes.push_back(heads);
    sizes.insert(sizes.end(), rest.begin(), rest.end());
    return sizes;
  }
};

/// "[B, H, L]" for a query of four dimensions, "[B, L]", "[L]".
const char* name_of(int64_t query_dim, std::array<const char*, 3> names) {
  return names.at(static_cast<size_t>(4 - query_dim));
}

void check_projection(const LinearAttentionParams& params, const at::Tensor& query) {
  const auto& projection = params.projection;
  if (params.feature_map != FeatureMap::random_features) {
    if (projection.defined())
      fail(kFunction, "projection", "none without random_features", describe(projection));
    return;
  }
  check_floating("projection", projection, query);
  if (projection.dim() != 2 || projection.size(0) < 1 || projection.size(1) != query.size(-1)) {
    fail(kFunction, "projection", c10::str("[M, D] with M >= 1 and D = ", query.size(-1)),
         describe(projection));
  }
}

/// int64 on the CPU.
at::Tensor checked_lengths(const at::Tensor& lengths, const Sizes& sizes) {
  if (!lengths.defined()) return lengths;
  checks::is_strided(kFunction, "key_lengths", lengths);
  const bool is_whole = lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt;
  if (!is_whole || lengths.dim() != 1 || lengths.size(0) != sizes.batch) {
    fail(kFunction, "key_lengths", c10::str("int64 or int32 [B] = [", sizes.batch, "]"), describe(lengths));
  }
  auto on_cpu = lengths.to(at::kCPU, at::kLong).contiguous();
  for (int64_t b = 0; b < sizes.batch; ++b) {
    const int64_t length = on_cpu.const_data_ptr<int64_t>()[b];
    if (length < 0 || length > sizes.keys) {
      fail(kFunction, "key_lengths", c10::str("lengths in 0 ... ", sizes.keys),
           c10::str(length, " for batch element ", b));
    }
  }
  return on_cpu;
}

void check_decay(const at::Tensor& log_decay, const at::Tensor& query, const Sizes& sizes) {
  check_floating("log_decay", log_decay, query);
  check_shape("log_decay", log_decay,
              {{"[H]", {sizes.heads}},
               {name_of(sizes.query_dim, {"[B, H, Lk]", "[B, Lk]", "[Lk]"}), sizes.per_head({sizes.keys})},
               {name_of(sizes.query_dim, {"[B, H, Lk, D]", "[B, Lk, D]", "[Lk, D]"}),
                sizes.per_head({sizes.keys, sizes.features})}});
}

/// [H], [B, H, Lk] or [B, H, Lk, D] of what the caller gave, in compute type.
at::Tensor decay_with_heads(const at::Tensor& log_decay, const Sizes& sizes, at::ScalarType type) {
  auto widened = log_decay.to(type);
  if (log_decay.sizes() == at::IntArrayRef({sizes.heads})) return widened;
  const bool is_per_channel = log_decay.dim() == sizes.query_dim;
  return is_per_channel ? widened.reshape({sizes.batch, sizes.heads, sizes.keys, sizes.features})
                        : widened.reshape({sizes.batch, sizes.heads, sizes.keys});
}

double default_scale(const at::Tensor& query, const LinearAttentionParams& params) {
  const bool is_one = params.normalize && params.feature_map != FeatureMap::random_features;
  return is_one ? 1 : 1 / std::sqrt(static_cast<double>(query.size(-1)));
}

struct CheckedCall {
  LinearAttentionCall call;
  Sizes sizes;
};

CheckedCall checked(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const LinearAttentionParams& params) {
  check_inputs(kFunction, query, key, value);
  check_projection(params, query);
  const double scale = params.scale.value_or(default_scale(query, params));
  if (!std::isfinite(scale)) fail(kFunction, "scale", "a finite number", c10::str(scale));
  if (params.feature_map == FeatureMap::random_features && scale < 0) {
    fail(kFunction, "scale", "a number of at least 0 for random_features", c10::str(scale));
  }
  LinearAttentionCall call{with_heads(query),
                           with_heads(key),
                           with_heads(value),
                           params.feature_map,
                           params.normalize,
                           scale,
                           {},
                           {},
                           {},
                           {}};
  const bool is_random = params.feature_map == FeatureMap::random_features;
  const Sizes sizes{call.query.size(0), call.query.size(1),
                    call.key.size(2),   is_random ? params.projection.size(0) : query.size(-1),
                    call.state_width(), query.dim()};
  const auto type = call.compute_type();
  if (params.log_decay.defined()) {
    check_decay(params.log_decay, query, sizes);
    call.log_decay = decay_with_heads(params.log_decay, sizes, type);
  }
  if (params.beta.defined()) {
    check_floating("beta", params.beta, query);
    check_shape(
        "beta", params.beta,
        {{name_of(sizes.query_dim, {"[B, H, Lk]", "[B, Lk]", "[Lk]"}), sizes.per_head({sizes.keys})}});
    call.beta = params.beta.to(type).reshape({sizes.batch, sizes.heads, sizes.keys});
  }
  if (params.initial_state.defined()) {
    check_floating("initial_state", params.initial_state, query);
    const std::array<const char*, 3> with_z = {"[B, H, D, Dv + 1]", "[B, D, Dv + 1]", "[D, Dv + 1]"};
    const std::array<const char*, 3> without_z = {"[B, H, D, Dv]", "[B, D, Dv]", "[D, Dv]"};
    check_shape("initial_state", params.initial_state,
                {{name_of(sizes.query_dim, params.normalize ? with_z : without_z),
                  sizes.per_head({sizes.features, sizes.state_width})}});
    call.initial_state =
        params.initial_state.to(type).reshape({sizes.batch, sizes.heads, sizes.features, sizes.state_width});
  }
  call.key_lengths = checked_lengths(params.key_lengths, sizes);
  return {call, sizes};
}

// ---- who computes a call

/// Why the fused kernels can't serve a call; empty where they can.
std::string fused_refusal(const LinearAttentionCall& call) {
  if (!call.query.device().is_cpu()) return "the tensors are not on the CPU";
  for (const auto& tensor :
       {call.query, call.key, call.value, call.log_decay, call.beta, call.initial_state}) {
    if (!tensor.defined()) continue;
    if (tensor._fw_grad(/*level=*/0).defined()) return "a tensor carries a forward-mode tangent";
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
    fail(kFunction, "form", "one that can serve the call", c10::str("fused, which can't: ", refusal));
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
  const auto [call, sizes] = checked(query, key, value, params);
  const auto result = params.feature_map == FeatureMap::random_features ? run_random_features(call, params)
                      : params.is_causal                                ? run(call, params.form)
                                                                        : run_not_causal(call, params.form);
  return {without_heads(result.output, sizes.query_dim), without_heads(result.final_state, sizes.query_dim)};
}

}  // namespace attend
