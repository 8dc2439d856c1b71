#pragma once

#include <ATen/core/Tensor.h>
#include <attend/attention.h>

#include <vector>

#include "core/score_shape.h"

namespace attend {

/// A call of `attention` with checked arguments: query, key and value are [B, H, L, D], and every default is
/// filled in.
struct AttentionCall {
  at::Tensor query, key, value;
  Mask mask = {};
  ScoreMod score_mod = {};
  Weighting weighting = Weighting::softmax;
  double scale = 1;
  double dropout_p = 0;
  at::Tensor dropout_seed = {};  ///< int64 [1] on the device of the query, or undefined without dropout
  int64_t query_dim = 4;         ///< the number of dimensions of the caller's query
  bool wants_logsumexp = false;
  at::Tensor sinks = {};  ///< [H] or undefined

  ScoreShape shape() const { return {query.size(0), query.size(1), query.size(2), key.size(2)}; }

  /// Returns the same sizes, which may be symbolic, as under torch.compile with dynamic shapes.
  SymScoreShape sym_shape() const {
    return {query.sym_size(0), query.sym_size(1), query.sym_size(2), key.sym_size(2)};
  }

  /// Returns the tensors of the score modification.
  std::vector<at::Tensor> score_mod_tensors() const;

  /// Returns the tensors that a backend differentiates: query, key, value, and the tensors of the score
  /// modification.
  std::vector<at::Tensor> inputs() const;

  /// Returns every tensor of the call: the inputs, the tensors of the mask, the sinks and the dropout seed.
  std::vector<at::Tensor> tensors() const;
};

}  // namespace attend
