#include "reference/additive_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include "core/dtypes.h"
#include "core/exact_dtype.h"
#include "reference/dropout.h"
#include "reference/mask.h"
#include "reference/softmax.h"
#include "reference/visible_keys.h"

namespace attend::reference {

at::Tensor additive_attention_weights(const AttentionCall& call, const at::Tensor& score_weight,
                                      const ScoreShape& shape) {
  const ExactDtype exact;  // a backward pass that recomputes the weights may run under autocast
  const auto query = widen(call.query).unsqueeze(-2), key = wide_keys(call.key, call).unsqueeze(-3);
  auto scores = at::matmul(at::tanh(query + key), score_weight.to(query.scalar_type()));
  if (call.mask.defined()) {
    scores = at::where(allowed(call.mask, shape, call.query_dim, scores.device()), scores, kMinusInfinity);
  }
  return softmax(scores);
}

at::Tensor additive_attention(const AttentionCall& call, const at::Tensor& score_weight,
                              const ScoreShape& shape) {
  const ExactDtype exact;
  auto weights = additive_attention_weights(call, score_weight, shape);
  if (call.dropout_p > 0) {
    weights = weights * dropout_factors(call.dropout_seed, call.dropout_p, shape, weights.scalar_type());
  }
  return at::matmul(weights, wide_keys(call.value, call)).to(call.query.scalar_type());
}

}  // namespace attend::reference
