#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/mask.h>

namespace attend {

/// The optional arguments of `additive_attention`.
struct AdditiveAttentionParams {
  /// Which queries may attend to which keys; a masked key has weight 0.
  Mask mask = {};
  /// Probability in [0, 1] that a weight is set to 0, as in `AttentionParams`.
  double dropout_p = 0.0;
};

/// Additive attention (Bahdanau 2014), whose scores come from a small network instead of a product:
///
///     S_ij = sum over a of score_weight_a * tanh(query_ia + key_ja),  O = dropout(softmax(mask(S))) V
///
/// | tensor       | shape            |                                                               |
/// | --- | --- | --- |
/// | query        | [B, H, Lq, A]    | usually W q; layouts, dtypes and masks are as for `attention` |
/// | key          | [B, Hkv, Lk, A]  | usually U k                                                   |
/// | value        | [B, Hkv, Lk, Dv] |                                                               |
/// | score_weight | [A]              | the paper's v, in the query's dtype or float32                |
/// | result       | [B, H, Lq, Dv]   |                                                               |
///
/// Sums accumulate in float32 (float64 for float64), also under autocast. Differentiable, also twice. The
/// arguments of tanh, A for each score, are computed for a few queries at a time, and recomputed for the
/// gradient, so that their memory does not grow with Lq.
///
/// Errors (c10::Error, before any work): as `attention`, and a score_weight of another shape or dtype.
ATTEND_API at::Tensor additive_attention(const at::Tensor& query, const at::Tensor& key,
                                         const at::Tensor& value, const at::Tensor& score_weight,
                                         const AdditiveAttentionParams& params = {});

/// Returns the weights softmax(mask(S)) before dropout, [B, H, Lq, Lk] in the query's dtype. Errors: as
/// `additive_attention`, except those of the value.
ATTEND_API at::Tensor additive_attention_weights(const at::Tensor& query, const at::Tensor& key,
                                                 const at::Tensor& score_weight, const Mask& mask = {});

}  // namespace attend
