#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/mask.h>
#include <attend/score_mod.h>

#include <optional>
#include <string>
#include <vector>

namespace attend {

/// The activation that turns scores into weights (the article's non-linear attention).
enum class Weighting {
  softmax,  ///< exp(s) / sum of exp(s) over the keys that the query may attend to
  sigmoid,  ///< 1 / (1 + exp(-s)), each key for itself (Ramapuram 2024)
  relu,     ///< max(s, 0), each key for itself
};

/// Who computes a call.
enum class Backend {
  automatic,  ///< the fastest that can serve the call; never an error
  fused,      ///< the library's kernels for the CPU: O(L) memory, tiles that a mask hides are skipped
  sdpa,       ///< at::scaled_dot_product_attention, where it has a fused kernel and can express the call
  reference,  ///< plain ATen operations, on any device; many scores are built a chunk of queries at a time
};

struct AttentionParams {
  /// Which scores count; a hidden key has weight 0.
  Mask mask = {};
  /// How scores change after scaling and before masking.
  ScoreMod score_mod = {};
  /// Multiplies QK^T. Default: 1 / sqrt(D).
  std::optional<double> scale = {};
  /// Probability in [0, 1], rounded to a multiple of 2^-16, that a weight is set to 0; the others are
  /// multiplied by 1 / (1 - that multiple). Which are dropped depends on (seed, b, h, i, j) alone; the seed
  /// is drawn from the generator of the query's device.
  double dropout_p = 0.0;
  Weighting weighting = Weighting::softmax;
  /// Attention sinks: [H], the query's dtype or float32, on its device; a learned score per head that joins
  /// the softmax's denominator, with no value of its own (Miller 2023; Xiao 2024): weights that sum to less
  /// than 1. The logsumexp includes it; it is neither modified nor masked, so that a query that may attend to
  /// nothing has output 0 and the sink as its logsumexp. Differentiable. Of half types the output is rounded
  /// before the sink joins and after.
  at::Tensor sinks = {};
  /// Error where the backend asked for can't serve the call; see `explain`.
  Backend backend = Backend::automatic;
};

/// Scaled dot-product attention (Vaswani 2017, equation 1), with scores as `params` changes them:
///
///     S = mask(score_mod(scale * Q K^T)),  P = weighting(S),  O = dropout(P) V
///
/// With sinks P = exp(S) / (exp(sink) + sum of exp(S)).
///
/// | tensor | shape            |                                                                     |
/// | query  | [B, H, Lq, D]    | or [B, Lq, D] or [Lq, D]: one head                                  |
/// | key    | [B, Hkv, Lk, D]  | the query's number of dimensions; Hkv divides H: head h reads key   |
/// | value  | [B, Hkv, Lk, Dv] | head h / (H / Hkv) (Shazeer 2019, Ainslie 2023)                     |
/// | result | [B, H, Lq, Dv]   | the query's number of dimensions                                    |
///
/// Lq != Lk, Dv != D, any strides, and sizes of 0 are fine (D >= 1). dtype: float64, float32, bfloat16 or
/// float16, the same for all three; sums accumulate in float32 (float64 for float64). Where the
/// processor multiplies bfloat16 (AVX512-BF16), weights and their gradients are rounded to it as by ATen, and
/// subnormal numbers count as 0. Gradients start from the output as it was rounded.
/// Differentiable, twice and in forward mode too, in query, key, value, the tensors of the score modification
/// and the sinks. A query that may attend to nothing has output 0 and gradients 0. The fused kernels give the
/// same bits on every run and for every number of threads; the other backends are as deterministic as ATen's
/// operations.
///
/// Errors (c10::Error, before any work): a wrong number of dimensions, size, dtype, device or parameter; the
/// message names the argument, what was expected and what it got.
ATTEND_API at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                const AttentionParams& params = {});

struct AttentionWithLse {
  at::Tensor output;  ///< as `attention` returns it
  /// [B, H, Lq], the logarithm of the sum of exp(S) over the keys, and of exp(sink); float32 (float64 for
  /// float64)
  at::Tensor logsumexp;
};

/// `attention` together with the logarithm of each row's softmax denominator (before dropout), -inf for a
/// query that may attend to nothing. With it, results over parts of the keys can be merged. Softmax weighting
/// only.
ATTEND_API AttentionWithLse attention_with_lse(const at::Tensor& query, const at::Tensor& key,
                                               const at::Tensor& value, const AttentionParams& params = {});

/// Why a call goes where it goes.
struct Explanation {
  struct Refusal {
    Backend backend;
    std::string reason;
  };
  Backend chosen;  ///< never `automatic`
  std::vector<Refusal>
      refused;  ///< the backends that were looked at and can't serve the call, with the reason
};

/// What `attention` would do with the same arguments. `automatic` takes the first that can serve the call:
/// `fused` on the CPU; on a CUDA device `sdpa`, which serves softmax weighting without dropout, logsumexp or
/// sinks, any mask (other than `causal` it is written out) and no score modification but a bias; then
/// `reference`. `sdpa` was tested on CPU tensors only. Where `params` asks for a backend, that one alone is
/// looked at: if it can't serve the call, which is an error of `attention`, `refused` says why and `chosen`
/// is `reference`. Errors: as `attention`, but for this one.
ATTEND_API Explanation explain(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const AttentionParams& params = {});

/// The weights P themselves, [B, H, Lq, Lk] in the query's dtype; dropout is not applied to them. For looking
/// at attention: this builds what `attention` need not, with the operations of the reference whatever
/// `params.backend` says. Errors: as `attention`, but for those of a value and of the backend.
ATTEND_API at::Tensor attention_weights(const at::Tensor& query, const at::Tensor& key,
                                        const AttentionParams& params = {});

}  // namespace attend
