#pragma once

#include <ATen/core/Tensor.h>
#include <attend/backend.h>
#include <attend/export.h>
#include <attend/mask.h>
#include <attend/score_mod.h>

#include <optional>

namespace attend {

/// The function that turns scores into weights.
enum class Weighting {
  softmax,  ///< exp(s) / sum of exp(s) over the keys that the query may attend to
  sigmoid,  ///< 1 / (1 + exp(-s)), elementwise (Ramapuram 2024)
  relu,     ///< max(s, 0), elementwise
};

/// The optional arguments of `attention`.
struct AttentionParams {
  /// Which queries may attend to which keys; a masked key has weight 0.
  Mask mask = {};
  /// The modification of the scores after scaling and before masking.
  ScoreMod score_mod = {};
  /// Multiplies QK^T. Default: 1 / sqrt(D).
  std::optional<double> scale = {};
  /// Probability in [0, 1], rounded to a multiple of 2^-16, that a weight is set to 0; the other weights are
  /// multiplied by 1 / (1 - this multiple). Whether a weight is dropped depends on (seed, b, h, i, j) alone;
  /// the seed is drawn from the default generator of the query's device.
  double dropout_p = 0.0;
  /// The function that turns scores into weights.
  Weighting weighting = Weighting::softmax;
  /// Attention sinks: a learned score per head in the denominator of the softmax, without a value (Miller
  /// 2023; Xiao 2024), so that weights sum to less than 1. [H], in the query's dtype or float32, on the
  /// query's device; differentiable. The logsumexp includes the sink. The sink is neither modified nor
  /// masked: a fully masked row has output 0 and the sink as its logsumexp. The output of half types is
  /// rounded both before and after the sink is applied.
  at::Tensor sinks = {};
  /// The implementation to use. It is an error if the requested backend cannot serve the call; see `explain`.
  Backend backend = Backend::automatic;
};

/// Computes scaled dot-product attention (Vaswani 2017, equation 1), with the changes that `params` requests:
///
///     S = mask(score_mod(scale * Q K^T)),  P = weighting(S),  O = dropout(P) V
///
/// With sinks P = exp(S) / (exp(sink) + sum of exp(S)).
///
/// | tensor | shape            |                                                                     |
/// | --- | --- | --- |
/// | query  | [B, H, Lq, D]    | or [B, Lq, D] or [Lq, D] for one head                               |
/// | key    | [B, Hkv, Lk, D]  | as many dimensions as the query; Hkv divides H, and query head h    |
/// | value  | [B, Hkv, Lk, Dv] | reads key head h / (H / Hkv) (Shazeer 2019, Ainslie 2023)           |
/// | result | [B, H, Lq, Dv]   | as many dimensions as the query                                     |
///
/// Lq != Lk, Dv != D, any strides and sizes of 0 are allowed (D >= 1). dtype: float64, float32, bfloat16 or
/// float16, the same for all three, also under autocast; sums accumulate in float32 (float64 for float64). On
/// processors that multiply bfloat16 (AVX512-BF16), weights and their gradients are rounded to bfloat16, as
/// ATen does, and subnormal values count as 0. Gradients are computed from the rounded output.
///
/// Weighted values are summed in float32 (float64 for float64). Values up to the largest number of that type
/// over the number of keys never overflow; larger values may give infinite outputs even where the weighted
/// mean is finite.
///
/// Differentiable, also twice and in forward mode, in query, key, value, the tensors of the score
/// modification and the sinks. A fully masked row has output 0 and gradients 0. The fused kernels give the
/// same bits on every run and for every number of threads; the other backends are as deterministic as ATen's
/// operations.
///
/// Errors (c10::Error, before any work): a wrong number of dimensions, size, dtype, device or parameter; the
/// message states the argument, what was expected and what was given.
ATTEND_API at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                const AttentionParams& params = {});

/// The result of `attention_with_lse`.
struct AttentionWithLse {
  at::Tensor output;  ///< the output of `attention`
  /// [B, H, Lq]: the logarithm of exp(sink) plus the sum of exp(S) over the keys; float32 (float64 for
  /// float64)
  at::Tensor logsumexp;
};

/// Computes `attention`, and the logsumexp of each row: the logarithm of the softmax denominator before
/// dropout, which is -inf for a fully masked row, and +inf for a row with a score of +inf, whose output is
/// NaN. With the logsumexp, results for parts of the keys can be merged. Softmax weighting only.
ATTEND_API AttentionWithLse attention_with_lse(const at::Tensor& query, const at::Tensor& key,
                                               const at::Tensor& value, const AttentionParams& params = {});

/// Returns the backend that `attention` would use for the same arguments. `automatic` takes the first backend
/// that can serve the call: `fused` on the CPU; then `sdpa`, which serves softmax weighting without dropout,
/// logsumexp and sinks, with any mask (every mask except `causal` is materialized) and with no score
/// modification except a bias; then `reference`. `sdpa` and `reference` use ATen on any device, but only the
/// CPU has been tested. If `params` requests a backend, only this backend is considered. If it cannot serve
/// the call, `attention` would fail; here, `refused` states the reason and `chosen` is `reference`. All other
/// errors are those of `attention`.
ATTEND_API Explanation explain(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const AttentionParams& params = {});

/// Returns the weights P before dropout, [B, H, Lq, Lk] in the query's dtype, for inspection. The reference
/// computes them, whatever `params.backend` is, and stores all scores, which `attention` avoids. Errors: as
/// `attention`, except those of the value and of the backend.
ATTEND_API at::Tensor attention_weights(const at::Tensor& query, const at::Tensor& key,
                                        const AttentionParams& params = {});

}  // namespace attend
