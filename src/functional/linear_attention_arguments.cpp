#include "functional/linear_attention_arguments.h"

#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "core/checks.h"
#include "core/inputs.h"
#include "functional/backend.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

/// A shape that an argument may have: its name, such as "[B, H, L]", and its sizes, in the caller's number of
/// dimensions.
struct Shape {
  const char* name;
  std::vector<c10::SymInt> sizes;
};

void check_shape(const char* function, const char* argument, const at::Tensor& tensor,
                 const std::vector<Shape>& allowed) {
  std::string expected;
  for (const auto& shape : allowed) {
    if (tensor.sym_sizes() == c10::SymIntArrayRef(shape.sizes)) return;
    expected += c10::str(expected.empty() ? "" : " or ", shape.name, " = ", c10::SymIntArrayRef(shape.sizes));
  }
  fail(function, argument, expected, describe(tensor));
}

/// Throws unless the tensor has the query's dtype or float32, and is on the query's device.
void check_floating(const char* function, const char* argument, const at::Tensor& tensor,
                    const at::Tensor& query) {
  checks::check_strided(function, argument, tensor);
  checks::check_floating(function, argument, tensor);
  if (tensor.scalar_type() != query.scalar_type() && tensor.scalar_type() != at::kFloat) {
    const bool is_float = query.scalar_type() == at::kFloat;
    fail(function, argument,
         c10::str("the query's dtype ", checks::dtype_name(query.scalar_type()),
                  is_float ? "" : " or float32"),
         describe(tensor));
  }
  checks::check_device(function, argument, tensor, query.device());
}

/// Returns the one of three names of a shape, such as "[B, H, L]", "[B, L]" and "[L]", for a query of four,
/// three or two dimensions.
const char* shape_name(int64_t query_dim, std::array<const char*, 3> names) {
  return names.at(static_cast<size_t>(4 - query_dim));
}

void check_choices(const char* function, const LinearAttentionParams& params) {
  if (params.feature_map < FeatureMap::elu_plus_one || params.feature_map > FeatureMap::random_features) {
    fail(function, "feature_map", "elu_plus_one, relu, identity or random_features",
         c10::str(static_cast<int64_t>(params.feature_map)));
  }
  check_backend(function, params.backend);
}

void check_projection(const char* function, const LinearAttentionParams& params, const at::Tensor& query) {
  const auto& projection = params.projection;
  if (params.feature_map != FeatureMap::random_features) {
    if (projection.defined())
      fail(function, "projection", "none without random_features", describe(projection));
    return;
  }
  if (!projection.defined()) {
    fail(function, "projection", "a tensor for random_features, such as that of orthogonal_projection",
         "none");
  }
  check_floating(function, "projection", projection, query);
  if (projection.dim() != 2 || projection.size(0) < 1 || projection.size(1) != query.size(-1)) {
    fail(function, "projection", c10::str("[M, D] with M >= 1 and D = ", query.size(-1)),
         describe(projection));
  }
}

/// Returns an int64 copy of the lengths on the CPU, after checking them.
at::Tensor checked_lengths(const char* function, const at::Tensor& lengths, const at::Tensor& query,
                           const LinearSizes& sizes) {
  if (!lengths.defined()) return lengths;
  checks::check_strided(function, "key_lengths", lengths);
  checks::check_has_data(function, "key_lengths", lengths, query.device());
  const bool is_integer = lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt;
  if (!is_integer || lengths.dim() != 1 || lengths.sym_size(0) != sizes.batch) {
    fail(function, "key_lengths", c10::str("int64 or int32 [B] = [", sizes.batch, "]"), describe(lengths));
  }
  // A copy, since the backward pass needs the lengths of the forward pass.
  auto on_cpu = lengths.to(at::kCPU, at::kLong).clone(at::MemoryFormat::Contiguous);
  for (int64_t b = 0; b < on_cpu.size(0); ++b) {
    const int64_t length = on_cpu.const_data_ptr<int64_t>()[b];
    if (length < 0 || length > sizes.keys) {
      fail(function, "key_lengths", c10::str("lengths in 0 ... ", sizes.keys),
           c10::str(length, " for batch element ", b));
    }
  }
  return on_cpu;
}

void check_decay(const char* function, const at::Tensor& log_decay, const at::Tensor& query,
                 const LinearSizes& sizes) {
  check_floating(function, "log_decay", log_decay, query);
  check_shape(function, "log_decay", log_decay,
              {{"[H]", {sizes.heads}},
               {shape_name(sizes.query_dim, {"[B, H, Lk]", "[B, Lk]", "[Lk]"}), sizes.per_head({sizes.keys})},
               {shape_name(sizes.query_dim, {"[B, H, Lk, D]", "[B, Lk, D]", "[Lk, D]"}),
                sizes.per_head({sizes.keys, sizes.features})}});
}

void check_beta(const char* function, const at::Tensor& beta, const at::Tensor& query,
                const LinearSizes& sizes) {
  check_floating(function, "beta", beta, query);
  check_shape(
      function, "beta", beta,
      {{shape_name(sizes.query_dim, {"[B, H, Lk]", "[B, Lk]", "[Lk]"}), sizes.per_head({sizes.keys})}});
}

/// Returns the caller's log decay as [H], [B, H, Lk] or [B, H, Lk, D], in compute type.
at::Tensor decay_with_heads(const at::Tensor& log_decay, const LinearSizes& sizes, at::ScalarType type) {
  auto widened = materialized(log_decay.to(type));
  if (log_decay.dim() == 1 && log_decay.sym_size(0) == sizes.heads) return widened;
  const bool is_per_channel = log_decay.dim() == sizes.query_dim;
  return is_per_channel ? widened.reshape_symint({sizes.batch, sizes.heads, sizes.keys, sizes.features})
                        : widened.reshape_symint({sizes.batch, sizes.heads, sizes.keys});
}

double default_scale(const at::Tensor& query, const LinearAttentionParams& params) {
  const bool is_one = params.normalize && params.feature_map != FeatureMap::random_features;
  return is_one ? 1 : 1 / std::sqrt(static_cast<double>(query.sym_size(-1).guard_int(__FILE__, __LINE__)));
}

}  // namespace

std::vector<c10::SymInt> LinearSizes::per_head(std::vector<c10::SymInt> rest) const {
  std::vector<c10::SymInt> sizes;
  if (query_dim > 2) sizes.push_back(batch);
  if (query_dim > 3) sizes.push_back(heads);
  sizes.insert(sizes.end(), rest.begin(), rest.end());
  return sizes;
}

void check_linear_state(const char* function, const char* argument, const at::Tensor& state,
                        const at::Tensor& query, const LinearSizes& sizes, bool normalize) {
  check_floating(function, argument, state, query);
  const std::array<const char*, 3> with_z = {"[B, H, D, Dv + 1]", "[B, D, Dv + 1]", "[D, Dv + 1]"};
  const std::array<const char*, 3> without_z = {"[B, H, D, Dv]", "[B, D, Dv]", "[D, Dv]"};
  check_shape(function, argument, state,
              {{shape_name(sizes.query_dim, normalize ? with_z : without_z),
                sizes.per_head({sizes.features, sizes.state_width})}});
}

std::vector<at::Tensor> LinearAttentionArguments::tensors() const {
  auto tensors = call.inputs();
  if (projection.defined()) tensors.push_back(projection);
  return tensors;
}

LinearAttentionArguments checked_arguments(const char* function, const at::Tensor& query,
                                           const at::Tensor& key, const at::Tensor& value,
                                           const LinearAttentionParams& params) {
  check_inputs(function, query, key, value);
  check_choices(function, params);
  check_projection(function, params, query);
  const bool is_random = params.feature_map == FeatureMap::random_features;
  const double scale = params.scale.value_or(default_scale(query, params));
  if (!std::isfinite(scale)) fail(function, "scale", "a finite number", c10::str(scale));
  if (is_random && scale < 0) {
    fail(function, "scale", "a number of at least 0 for random_features", c10::str(scale));
  }
  LinearAttentionCall call{.query = with_heads(query),
                           .key = with_heads(key),
                           .value = with_heads(value),
                           .feature_map = params.feature_map,
                           .normalize = params.normalize,
                           .scale = scale};
  const LinearSizes sizes{.batch = call.query.sym_size(0),
                          .heads = call.query.sym_size(1),
                          .keys = call.key.sym_size(2),
                          .features = is_random ? params.projection.sym_size(0) : query.sym_size(-1),
                          .state_width = call.sym_state_width(),
                          .query_dim = query.dim()};
  const auto type = call.compute_type();
  if (params.log_decay.defined()) {
    check_decay(function, params.log_decay, query, sizes);
    call.log_decay = decay_with_heads(params.log_decay, sizes, type);
  }
  if (params.beta.defined()) {
    check_beta(function, params.beta, query, sizes);
    call.beta = materialized(params.beta.to(type)).reshape_symint({sizes.batch, sizes.heads, sizes.keys});
  }
  if (params.initial_state.defined()) {
    check_linear_state(function, "initial_state", params.initial_state, query, sizes, params.normalize);
    call.initial_state = materialized(params.initial_state.to(type))
                             .reshape_symint({sizes.batch, sizes.heads, sizes.features, sizes.state_width});
  }
  call.key_lengths = checked_lengths(function, params.key_lengths, query, sizes);
  return {.call = call, .projection = params.projection, .is_causal = params.is_causal, .sizes = sizes};
}

}  // namespace attend
