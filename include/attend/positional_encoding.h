#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <cstdint>
#include <optional>

namespace attend {

/// Which two channels of a head form a pair that is rotated; n = the number of rotated channels.
enum class RotaryLayout {
  half_split,   ///< channels i and i + n / 2 (GPT-NeoX, Llama in `transformers`)
  interleaved,  ///< channels 2 i and 2 i + 1 (Su 2021, GPT-J, Llama as published)
};

/// How the frequencies are scaled, by `factor` s, for contexts longer than the training context.
enum class RotaryScaling {
  none,    ///< frequencies are not scaled
  linear,  ///< position interpolation (Chen 2023): every frequency is divided by s
  /// NTK-aware: the base becomes base * s^(n / (n - 2)), which divides the lowest frequency by s and keeps
  /// the highest.
  ntk,
  /// YaRN (Peng 2023): frequencies of fewer than `beta_slow` rotations within `original_length` are divided
  /// by s, those of more than `beta_fast` rotations are kept, with a linear ramp over the pairs between; the
  /// rotated channels are multiplied by `attention_factor`.
  yarn,
};

/// Parameters of `rotary`.
struct RotaryParams {
  RotaryLayout layout = RotaryLayout::half_split;  ///< which channels form a pair
  int64_t dims = 0;     ///< the number n of rotated channels, which are the first; even, at most D; 0 means D
  double base = 10000;  ///< the base of the frequencies base^(-2 i / n); must be above 1
  /// The scaling of frequencies for contexts longer than the training context.
  RotaryScaling scaling = RotaryScaling::none;
  double factor = 1;            ///< s, at least 1; must be 1 without a scaling
  int64_t original_length = 0;  ///< length of the training context; required for YaRN, else unused
  double beta_fast = 32;        ///< for YaRN: rotations above which a frequency is kept
  double beta_slow = 1;         ///< for YaRN: rotations below which a frequency is divided by s
  /// For YaRN: the factor by which the rotated channels are multiplied. Default: 0.1 ln(s) + 1.
  std::optional<double> attention_factor = {};
};

/// Returns the frequencies of the n / 2 pairs of channels in radians per position, which are base^(-2 i / n)
/// without scaling: float64 [n / 2] on the CPU. n is `params.dims`, or `dims` if `params.dims` is 0. Errors:
/// as `rotary`.
ATTEND_API at::Tensor rotary_frequencies(int64_t dims, const RotaryParams& params = {});

/// Rotary position embedding (Su 2021): rotates each pair of channels (a, b) of the token at position p by
/// the angle t = p * frequency of the pair,
///
///     a' = a cos t - b sin t,  b' = a sin t + b cos t
///
/// so that the dot product of a query and a key depends only on the difference of their positions. `x` is a
/// tensor of queries or keys, [B, H, L, D], [B, L, D] or [L, D], of a floating dtype. `positions` is int64 or
/// int32, [L] or [B, L]; default 0 ... L - 1. The result has the shape and dtype of `x`; differentiable.
/// Angles are computed in float64 for every dtype: in float32, the angle of position 100,000 would have an
/// error of 0.004. Errors (c10::Error): an odd number of rotated channels, or more than x has; positions of
/// another shape or dtype; a factor below 1, or other than 1 without a scaling.
ATTEND_API at::Tensor rotary(const at::Tensor& x, const RotaryParams& params = {},
                             const at::Tensor& positions = {});

/// Returns the slopes of ALiBi (Press 2022) for `attend::alibi`, float32 [num_heads]. If the number of heads
/// n is a power of two, the slopes are 2^(-8 h / n) for h = 1 ... n. Otherwise they are the slopes for the
/// next smaller power of two, followed by every second slope for the next larger power of two, as in the
/// authors' code.
ATTEND_API at::Tensor alibi_slopes(int64_t num_heads);

/// Returns the sinusoidal position embedding (Vaswani 2017, section 3.5), [length, dim]: for position p,
/// channel 2 i is sin(p / base^(2 i / dim)) and channel 2 i + 1 is the cosine of the same angle. Row n is for
/// position `first_position` + n. The embedding is computed in float64, and returned in the dtype and on the
/// device of `options` (default: float32 on the CPU).
ATTEND_API at::Tensor sinusoidal(int64_t length, int64_t dim, int64_t first_position = 0, double base = 10000,
                                 const at::TensorOptions& options = {});

/// The buckets into which T5 (Raffel 2020) sorts distances. The first half of the buckets of a direction have
/// one distance each, from 0 on. The others have logarithmically growing ranges up to `max_distance`; the
/// last one also has all longer distances.
struct RelativeBuckets {
  int64_t count = 32;          ///< the number of buckets, of both directions together if `bidirectional`
  int64_t max_distance = 128;  ///< must exceed half the number of buckets of a direction
  /// If true, keys after the query have separate buckets, the upper half, as in an encoder. If false, they
  /// have bucket 0, as the query's own position, as in a causal decoder.
  bool bidirectional = true;
};

/// Returns the bucket of `distance` = key position - query position. Errors (c10::Error): fewer than 2
/// buckets; if bidirectional, fewer than 4 or an odd number of buckets; a maximum distance that is too small.
ATTEND_API int64_t relative_bucket(int64_t distance, const RelativeBuckets& buckets = {});

/// Returns the bucket of each query and key, int64 [queries, keys] on the CPU; the last query is aligned with
/// the last key, as in `attend::Mask`. Errors: as `relative_bucket`.
ATTEND_API at::Tensor relative_buckets(int64_t queries, int64_t keys, const RelativeBuckets& buckets = {});

}  // namespace attend
