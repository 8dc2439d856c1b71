#pragma once

#include <ATen/core/Tensor.h>
#include <attend/linear_attention.h>

#include "core/checks.h"
#include "core/compute_type.h"

namespace attend {

/// A causal call of `linear_attention` after its arguments were checked: [B, H, L, D] throughout, nothing
/// left to default, no random features. Where `query` has length 0 only the final state is asked for.
struct LinearAttentionCall {
  at::Tensor query, key, value;
  FeatureMap feature_map;
  bool normalize;
  double scale;
  /// Of compute type: undefined, [H], [B, H, Lk] or [B, H, Lk, D].
  at::Tensor log_decay;
  at::Tensor beta;           ///< of compute type, [B, H, Lk], or undefined
  at::Tensor initial_state;  ///< of compute type, [B, H, D, state_width()], or undefined
  at::Tensor key_lengths;    ///< int64 [B] on the CPU, or undefined

  int64_t state_width() const { return value.size(3) + (normalize ? 1 : 0); }
  at::ScalarType compute_type() const { return attend::compute_type(query); }
};

}  // namespace attend
