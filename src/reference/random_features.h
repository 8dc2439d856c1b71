#pragma once

#include "core/linear_attention_call.h"

namespace attend {

/// Logarithms of the positive random features of the softmax kernel (FAVOR+, Choromanski 2021, lemma 1):
/// [B, H, L, M] of x [B, H, L, D] and projection [M, D], of one dtype.
at::Tensor log_random_features(const at::Tensor& x, const at::Tensor& projection, double scale);

/// The logarithms of a query, lowered by its largest where that cancels with its normaliser.
at::Tensor log_random_features_of_query(const LinearAttentionCall& call, const at::Tensor& projection);

/// A call on random features, all of compute type, that neither overflow nor vanish in sums with larger ones;
/// where decays differ among the heads of a key or its channels, those of the weakest decay.
struct RandomFeaturesCall {
  LinearAttentionCall call;  ///< with the identity as feature map
  /// Logarithms of the units that keys and states are in, [B, H, 1 + Lk]: before the first key, and from each
  /// on. A state times the exponential of its unit is that of the features themselves.
  at::Tensor log_units;
};

/// `call` still has the query and key themselves, and decays and states as the caller gave them.
RandomFeaturesCall random_features_call(const LinearAttentionCall& call, const at::Tensor& projection,
                                        bool is_causal);

/// tensor * exp(log_factor), also where the factor alone leaves the range of the dtype.
at::Tensor times_exp(const at::Tensor& tensor, const at::Tensor& log_factor);

}  // namespace attend
