#pragma once

// Positive random features of the softmax kernel (FAVOR+, Choromanski 2021, lemma 1).

#include "core/linear_attention_call.h"

namespace attend::reference {

/// The call with the random features of its queries and keys in their place, and the identity as feature map;
/// query, key and value are of compute type. With `normalize`, the exponents of each query are lowered by
/// their maximum, which cancels with the normaliser.
LinearAttentionCall random_features(const LinearAttentionCall& call, const at::Tensor& projection);

/// `random_features`, scaled so that exponentials neither overflow nor vanish in sums with larger ones.
struct StabilizedFeatures {
  LinearAttentionCall call;
  /// The logarithms of the units of keys and states, [B, H, 1 + Lk]: before the first key, and from each key
  /// on. A state times the exponential of its unit is the state of the features themselves. Units follow the
  /// weakest decay of the heads that share a key and of their channels.
  at::Tensor log_units;
};
StabilizedFeatures stabilized_random_features(const LinearAttentionCall& call, const at::Tensor& projection,
                                              bool is_causal);

/// tensor * exp(log_factor), also if the factor alone leaves the range of the dtype.
at::Tensor times_exp(const at::Tensor& tensor, const at::Tensor& log_factor);

}  // namespace attend::reference
