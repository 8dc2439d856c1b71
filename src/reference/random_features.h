#pragma once

// Positive random features of the softmax kernel (FAVOR+, Choromanski 2021, lemma 1).

#include "core/linear_attention_call.h"

namespace attend::reference {

/// Returns the call with queries and keys replaced by their random features, and with the identity as feature
/// map; query, key and value are of compute type. With `normalize`, the maximum of the log features of each
/// query is subtracted from them, which the division by the normaliser cancels.
LinearAttentionCall random_features(const LinearAttentionCall& call, const at::Tensor& projection);

/// The result of `random_features`, scaled so that the features neither overflow nor vanish in sums with
/// larger ones.
struct StabilizedFeatures {
  LinearAttentionCall call;
  /// The logarithms of the units by which features and states are divided, [B, H, 1 + Lk]: before the first
  /// key, and after each key. The state of the scaled features times exp(log_units) is the state of the
  /// unscaled features. The units decay by the weakest decay among the query heads that share a key and among
  /// their channels.
  at::Tensor log_units;
};
StabilizedFeatures stabilized_random_features(const LinearAttentionCall& call, const at::Tensor& projection,
                                              bool is_causal);

/// Returns tensor * exp(log_factor), also if exp(log_factor) alone is out of the range of the dtype.
at::Tensor times_exp(const at::Tensor& tensor, const at::Tensor& log_factor);

}  // namespace attend::reference
