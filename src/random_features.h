#pragma once

#include <ATen/core/Tensor.h>

namespace attend {

struct RandomFeatures {
  at::Tensor query, key;
  /// The logarithm, [B, H, 1, 1], by which every feature of the key is less than it should be: states of
  /// these features are to be multiplied by its exponential.
  at::Tensor log_lowered;
};

/// Positive random features of the softmax kernel (FAVOR+, Choromanski 2021, lemma 1), stabilised. query and
/// key [B, H, L, D], projection [M, D], all of compute type. Keys past `lengths` (or undefined) count for
/// nothing. What a query is lowered by cancels with its normaliser; what keys are lowered by is told, and
/// does harm to the delta rule, which is not linear in them.
RandomFeatures random_features(const at::Tensor& query, const at::Tensor& key, const at::Tensor& projection,
                               const at::Tensor& lengths, double scale, bool normalize, bool lowers_keys);

}  // namespace attend
