#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <cstdint>
#include <optional>

namespace attend {

/// Which two channels of a head turn together; n = the number of rotated channels.
enum class RotaryLayout {
  half_split,   ///< channels i and i + n / 2 (GPT-NeoX, Llama in `transformers`)
  interleaved,  ///< channels 2 i and 2 i + 1 (Su 2021, GPT-J, Llama as published)
};

/// How frequencies change for contexts longer than those of the training, by `factor` s.
enum class RotaryScaling {
  none,
  linear,  ///< position interpolation (Chen 2023): every frequency over s
  ntk,  ///< NTK-aware: base * s^(n / (n - 2)), so that the slowest frequency is over s, the fastest as it was
  /// YaRN (Peng 2023): frequencies that turn less than `beta_slow` times within `original_length` are over s,
  /// those that turn more than `beta_fast` times stay, with a ramp over the channels between; the rotated
  /// channels are multiplied by `attention_factor`.
  yarn,
};

struct RotaryParams {
  RotaryLayout layout = RotaryLayout::half_split;
  /// How many channels turn, the first ones; even, at most D. 0: all.
  int64_t dims = 0;
  double base = 10000;
  RotaryScaling scaling = RotaryScaling::none;
  double factor = 1;            ///< s, at least 1; 1 without a scaling
  int64_t original_length = 0;  ///< the context of the training; for YaRN, which needs it
  double beta_fast = 32;        ///< for YaRN
  double beta_slow = 1;         ///< for YaRN
  /// For YaRN. Default: 0.1 ln(s) + 1.
  std::optional<double> attention_factor = {};
};

/// The angle per position of each of the n / 2 pairs of channels, base^(-2 i / n) where nothing is scaled:
/// float64 [n / 2] on the CPU. `dims` = n is that of `params` where it names one. Errors: as `rotary`.
ATTEND_API at::Tensor rotary_frequencies(int64_t dims, const RotaryParams& params = {});

/// Rotary position embedding (Su 2021): turns each pair of channels (a, b) of the token at position p by the
/// angle t = p * frequency of the pair,
///
///     a' = a cos t - b sin t,  b' = a sin t + b cos t
///
/// so that the product of a query and a key depends on the distance of their positions alone. `x`: queries or
/// keys, [B, H, L, D], [B, L, D] or [L, D], of a floating dtype. `positions`: int64 or int32, [L] or [B, L];
/// default 0 ... L - 1. The result has the shape and dtype of `x`; differentiable. Angles are computed in
/// float64, whatever the dtype: in float32, position 100,000 would be wrong by 0.004. Errors (c10::Error): an
/// odd number of channels to turn, or more than x has; positions of another shape or dtype; a factor below 1,
/// or another than 1 without a scaling.
ATTEND_API at::Tensor rotary(const at::Tensor& x, const RotaryParams& params = {},
                             const at::Tensor& positions = {});

/// The slopes of ALiBi (Press 2022) for any number of heads, float32 [num_heads], for `attend::alibi`. For n
/// heads, a power of two, 2^(-8 h / n), h = 1 ... n; for other numbers, those of the power of two below,
/// followed by every second one of the power of two above, as the authors do.
ATTEND_API at::Tensor alibi_slopes(int64_t num_heads);

/// Sinusoidal position embedding (Vaswani 2017, section 3.5), [length, dim]: for position p channel 2 i is
/// sin(p / base^(2 i / dim)) and channel 2 i + 1 its cosine. The first row is that of `first_position`.
/// Computed in float64, returned as `options` say (default: float32 on the CPU).
ATTEND_API at::Tensor sinusoidal(int64_t length, int64_t dim, int64_t first_position = 0, double base = 10000,
                                 const at::TensorOptions& options = {});

/// How T5 (Raffel 2020) puts distances into buckets: half of them (of each direction) hold one distance each,
/// from 0 on, the other half ever longer ranges up to `max_distance`, from where on all share the last one.
struct RelativeBuckets {
  int64_t count = 32;          ///< of both directions together
  int64_t max_distance = 128;  ///< above half the buckets of a direction
  /// Whether keys after the query have buckets of their own, the upper half of all, as in an encoder; else
  /// they share the query's own bucket, 0, as in a causal decoder.
  bool bidirectional = true;
};

/// The bucket of `distance`, key position - query position. Errors (c10::Error): a count of buckets below 2,
/// or below 4 or odd where bidirectional; a maximum distance that is too small.
ATTEND_API int64_t relative_bucket(int64_t distance, const RelativeBuckets& buckets = {});

/// The bucket of each query and key, int64 [queries, keys] on the CPU; the last query is aligned with the
/// last key, as in `attend::Mask`. Errors: as `relative_bucket`.
ATTEND_API at::Tensor relative_buckets(int64_t queries, int64_t keys, const RelativeBuckets& buckets = {});

}  // namespace attend
