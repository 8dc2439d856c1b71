#include "functional/attention_arguments.h"

#include <ATen/ops/randint.h>

#include <cmath>
#include <limits>

#include "core/checks.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "functional/backend.h"
#include "functional/mask/check.h"
#include "functional/score_mod/check.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

/// Throws unless the scale is finite in the dtype in which the scores are computed.
void check_scale(const char* function, double scale, at::ScalarType dtype) {
  const bool is_double = dtype == at::kDouble;
  const double largest = is_double ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  if (!(std::abs(scale) <= largest)) {
    fail(function, "scale", c10::str("a finite number in the range of ", is_double ? "float64" : "float32"),
         c10::str(scale));
  }
}

double default_scale(const at::Tensor& query) {
  return 1 / std::sqrt(static_cast<double>(query.sym_size(-1).guard_int(__FILE__, __LINE__)));
}

void check_sinks(const char* function, const at::Tensor& sinks, const AttentionCall& call) {
  checks::check_strided(function, "sinks", sinks);
  checks::check_device(function, "sinks", sinks, call.query.device());
  if (sinks.scalar_type() != call.query.scalar_type() && sinks.scalar_type() != at::kFloat) {
    fail(function, "sinks", "the query's dtype or float32", describe(sinks));
  }
  const int64_t heads = call.query.size(1);
  if (sinks.dim() != 1 || sinks.size(0) != heads) {
    fail(function, "sinks", c10::str("one per head, [", heads, "]"), describe(sinks));
  }
  if (call.weighting != Weighting::softmax) {
    fail(function, "weighting", "softmax, whose denominator includes the sinks",
         call.weighting == Weighting::sigmoid ? "sigmoid" : "relu");
  }
}

}  // namespace

at::Tensor draw_seed(at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return at::randint(std::numeric_limits<int64_t>::max(), {1}, options);
}

AttentionCall checked_call(const char* function, const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, const AttentionParams& params) {
  check_inputs(function, query, key, value);
  if (!(params.dropout_p >= 0 && params.dropout_p <= 1)) {
    fail(function, "dropout_p", "a probability in [0, 1]", c10::str(params.dropout_p));
  }
  if (params.weighting < Weighting::softmax || params.weighting > Weighting::relu) {
    fail(function, "weighting", "softmax, sigmoid or relu", c10::str(static_cast<int64_t>(params.weighting)));
  }
  check_backend(function, params.backend);
  const double scale = params.scale.value_or(default_scale(query));
  check_scale(function, scale, query.scalar_type());

  AttentionCall call{.query = with_heads(query),
                     .key = with_heads(key),
                     .value = with_heads(value),
                     .mask = params.mask,
                     .score_mod = params.score_mod,
                     .weighting = params.weighting,
                     .scale = scale,
                     .dropout_p = params.dropout_p,
                     .query_dim = query.dim(),
                     .sinks = params.sinks};
  if (torch_private::has_symbolic_sizes(call.tensors())) return call;  // ATen's operations check these sizes
  check_score_mod(function, call.score_mod, call.shape(), query);
  check_mask(function, call.mask, call.shape(), query.dim(), query.device());
  if (call.sinks.defined()) check_sinks(function, call.sinks, call);
  return call;
}

}  // namespace attend
