#include "reference/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>

#include "core/checks.h"
#include "core/dtypes.h"
#include "core/exact_dtype.h"
#include "reference/dropout.h"
#include "reference/mask.h"
#include "reference/score_mod.h"
#include "reference/softmax.h"
#include "reference/visible_keys.h"

namespace attend::reference {
namespace {

/// Returns S = mask(score_mod(scale * Q K^T)) for the rows of `shape`; masked scores are -inf.
at::Tensor scores(const AttentionCall& call, const SymScoreShape& shape) {
  const auto query = checks::rows_of(call.query, shape);
  auto scores = at::matmul(widen(query), wide_keys(call.key, call).transpose(-2, -1)) * call.scale;
  scores = modify_scores(scores, call.score_mod, shape, call.query_dim);
  if (call.mask.defined()) {
    scores = at::where(allowed(call.mask, shape, call.query_dim, scores.device()), scores, kMinusInfinity);
  }
  return scores;
}

at::Tensor logsumexp(const at::Tensor& scores) {
  const auto is_visible = rows_with_visible_key(scores);
  return at::where(is_visible.squeeze(-1), at::logsumexp(at::where(is_visible, scores, 0.0), -1),
                   kMinusInfinity);
}

at::Tensor weigh(const at::Tensor& scores, Weighting weighting) {
  switch (weighting) {
    case Weighting::sigmoid:
      return at::sigmoid(scores);
    case Weighting::relu:
      return at::relu(scores);
    case Weighting::softmax:
      break;
  }
  return softmax(scores);
}

/// Returns O = dropout(weighting(S)) V.
at::Tensor output(const at::Tensor& scores, const AttentionCall& call, const SymScoreShape& shape) {
  auto weights = weigh(scores, call.weighting);
  if (call.dropout_p > 0) {
    weights = weights * dropout_factors(call.dropout_seed, call.dropout_p, shape, weights.scalar_type());
  }
  return at::matmul(weights, wide_keys(call.value, call)).to(call.query.scalar_type());
}

}  // namespace

AttentionWithLse attention(const AttentionCall& call) {
  return attention_rows(call, 0, call.query.sym_size(2));
}

AttentionWithLse attention_rows(const AttentionCall& call, const c10::SymInt& first,
                                const c10::SymInt& rows) {
  const ExactDtype exact;  // a backward pass that recomputes the attention may run under autocast
  const auto shape = call.sym_shape().part(first, rows);
  const auto masked_scores = scores(call, shape);
  return {output(masked_scores, call, shape), call.wants_logsumexp ? logsumexp(masked_scores) : at::Tensor()};
}

at::Tensor attention_weights(const AttentionCall& call) {
  const ExactDtype exact;
  return weigh(scores(call, call.sym_shape()), call.weighting).to(call.query.scalar_type());
}

}  // namespace attend::reference
