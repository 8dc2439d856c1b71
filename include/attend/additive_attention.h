#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/mask.h>

namespace attend {

struct AdditiveAttentionParams {
  /// Which scores count; a hidden key has weight 0.
  Mask mask = {};
  /// Probability in [0, 1] that a weight is set to 0, as in `AttentionParams`.
  double dropout_p = 0.0;
};

/// Additive attention (Bahdanau 2014), the scores of a small network instead of a product:
///
///     S_ij = sum over a of score_weight_a * tanh(query_ia + key_ja),  O = dropout(softmax(mask(S))) V
///
/// Query [B, H, Lq, A], key [B, Hkv, Lk, A] and value [B, Hkv, Lk, Dv] are laid out, checked and masked as
/// for `attention`, and are usually W q and U k; score_weight, the paper's v, is [A] in the query's dtype or
/// float32. Result: [B, H, Lq, Dv]. Sums accumulate in float32 (float64 for float64). Differentiable, twice
/// too. The arguments of tanh, A for each score, are built for a few queries at a time, and again for the
/// gradient, so that memory does not grow with Lq.
///
/// Errors (c10::Error, before any work): as `attention`, and another score_weight.
ATTEND_API at::Tensor additive_attention(const at::Tensor& query, const at::Tensor& key,
                                         const at::Tensor& value, const at::Tensor& score_weight,
                                         const AdditiveAttentionParams& params = {});

/// The weights softmax(mask(S)), [B, H, Lq, Lk] in the query's dtype, without dropout.
ATTEND_API at::Tensor additive_attention_weights(const at::Tensor& query, const at::Tensor& key,
                                                 const at::Tensor& score_weight, const Mask& mask = {});

}  // namespace attend
