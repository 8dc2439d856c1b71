#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <optional>

namespace attend {

/// The map phi that queries and keys go through before they meet.
enum class FeatureMap {
  elu_plus_one,  ///< elu(x) + 1, of each channel (Katharopoulos 2020, equation 7)
  relu,          ///< max(x, 0), of each channel
  identity,      ///< x
  /// Positive random features of the softmax kernel (FAVOR+, Choromanski 2021, lemma 1): with x' =
  /// sqrt(scale) x and the rows w_m of `projection` [M, D], feature m is exp(w_m x' - |x'|^2 / 2) / sqrt(M),
  /// so that the expectation of phi(q) phi(k) over Gaussian w is exp(scale * q k). `scale` acts here and
  /// nowhere else.
  random_features,
};

/// How a call is computed; the result is the same.
enum class LinearForm {
  automatic,  ///< fused where it can be, else chunked; never an error
  fused,      ///< the library's kernels for the CPU, in chunks
  chunked,    ///< plain ATen operations in chunks of 64, on any device, with every derivative that ATen has
  recurrent,  ///< plain ATen operations step by step: the definition, slow
};

struct LinearAttentionParams {
  FeatureMap feature_map = FeatureMap::elu_plus_one;
  /// [M, D] in the query's dtype or float32, for `random_features` and nothing else; M features take the
  /// place of the D channels. See `orthogonal_projection`.
  at::Tensor projection = {};
  /// Divides each output by z_t phi(q_t).
  bool normalize = true;
  /// Whether query i sees the keys j <= i + Lk - Lq alone, or the state after the last key.
  bool is_causal = false;
  /// Logarithm of the decay a_t, at most 0; -inf forgets everything. [H], [B, H, Lk], or of each channel
  /// [B, H, Lk, D]. Default: no decay.
  at::Tensor log_decay = {};
  /// Write strength beta_t in [0, 1], [B, H, Lk]: the delta rule. Default: no delta rule.
  at::Tensor beta = {};
  /// Multiplies the query. Default: 1 where normalize is set, else 1 / sqrt(D); for `random_features` always
  /// 1 / sqrt(D).
  std::optional<double> scale = {};
  /// The final state of what came before. Default: zeros.
  at::Tensor initial_state = {};
  /// int64 or int32 [B], each in 0 ... Lk: keys and values from there on are never read; state and normaliser
  /// pass by them as they are.
  at::Tensor key_lengths = {};
  /// Error where the form asked for can't serve the call.
  LinearForm form = LinearForm::automatic;
};

struct LinearAttentionResult {
  at::Tensor output;       ///< [B, H, Lq, Dv] in the query's dtype
  at::Tensor final_state;  ///< after the last key, as `initial_state` takes it
};

/// Linear attention: each head carries a state S [D, Dv], which each key changes and each query reads. With
/// decay a_t and q_t, k_t = phi of the inputs:
///
///     S_t = diag(a_t) S_{t-1} + k_t v_t^T                                          without beta
///     S_t = diag(a_t) S_{t-1} + beta_t k_t (v_t - (diag(a_t) S_{t-1})^T k_t)^T     with beta (delta rule)
///     z_t = diag(a_t) z_{t-1} + k_t                                                where normalize is set
///     o_t = S_t^T (scale * q_t), over z_t q_t where normalize is set (so the scale does not cancel)
///
/// Where is_causal is not set, every query reads the state after the last key.
///
/// | tensor        | shape                                                                            |
/// | query         | [B, H, Lq, D], or [B, L, D] or [L, D]: one head                                  |
/// | key, value    | [B, Hkv, Lk, D], [B, Hkv, Lk, Dv]; Hkv divides H; the query's number of          |
/// |               | dimensions                                                                       |
/// | initial_state | [B, H, D, Dv], with normalize [B, H, D, Dv + 1], whose last column is z; with    |
/// |               | random features M instead of D                                                   |
///
/// For a query of three or two dimensions decay, beta, state and result lack what it lacks: log_decay
/// [B, L] for [B, H, L], and so on.
///
/// | paper              | name                       | settings, with is_causal = true                     |
/// | Katharopoulos 2020 | linear attention           | the defaults (is_causal as you like)                |
/// | Choromanski 2021   | Performer, FAVOR+          | random_features, projection                         |
/// | Sun 2023           | retention                  | identity, normalize = false, log_decay [H]          |
/// | Qin 2024           | lightning attention        | as retention, scale = 1                             |
/// | Dao & Gu 2024      | Mamba-2 (SSD)              | as retention, scale = 1, log_decay [B, H, L]        |
/// | Yang 2023          | gated linear attention     | identity, normalize = false, log_decay [B, H, L, D] |
/// | Yang 2024          | DeltaNet                   | identity, normalize = false, beta                   |
/// | Yang & Kautz 2024  | Gated DeltaNet             | as DeltaNet, log_decay [B, H, L]                    |
/// | Kimi Team 2025     | Kimi delta attention (KDA) | as DeltaNet, log_decay [B, H, L, D]                 |
///
/// (Retention's paper decays with exp(log_decay[h]); its group norm and gate, and the norms of DeltaNet's
/// keys and queries, are the caller's: see nn/linear_attention.h.)
///
/// dtype: float64, float32, bfloat16 or float16, the same for query, key and value; log_decay, beta and
/// initial_state in the query's dtype or float32. Sums, states and the final state are float32 (float64 for
/// float64). Differentiable, twice and in forward mode too, in all of them. An output whose normaliser is 0
/// is 0, with gradients 0; so is one whose normaliser is of magnitude below 1e-31 (1e-292 for float64; of
/// random features in the units below), where terms of it underflow. Decays enter as products of factors of
/// at most 1, nothing is divided by one: no decay, however strong, and no sequence, however long, overflows
/// by them. The delta rule itself diverges where beta_t |k_t|^2 is above 2: bring keys to a length of 1
/// before it.
///
/// Random features are stabilised: with normalize, the exponents of each query are lowered by its largest,
/// and without beta those of the keys, and states with them, by the largest of a head so far: no key is lost
/// beside a later one. Heads that share a key, and channels, share those units, which follow the weakest of
/// their decays: what a much stronger one has left can underflow. The states that go in and out are those of
/// the features themselves, which float32 holds from e^-87 to e^88; so are those of linear_attention_step
/// throughout.
///
/// Errors (c10::Error, before any work): a wrong number of dimensions, size, dtype, device or parameter; the
/// message names the argument, what was expected and what it got. Values are checked of key_lengths alone: a
/// log_decay above 0 or a beta outside 0 ... 1 is no error. It gives what the equations say, which then may
/// overflow.
ATTEND_API LinearAttentionResult linear_attention(const at::Tensor& query, const at::Tensor& key,
                                                  const at::Tensor& value,
                                                  const LinearAttentionParams& params = {});

/// One token of decoding: what `linear_attention`, causal, gives for it after `initial_state`. `state` is
/// that, and becomes the final state in place: a token costs the same time and memory whatever came before.
///
/// | tensor     | shape                                                                                   |
/// | query      | [B, H, 1, D], or [B, 1, D] or [1, D]: one head                                          |
/// | key, value | [B, Hkv, 1, D], [B, Hkv, 1, Dv]                                                         |
/// | state      | as `initial_state`; contiguous, float32 (float64 for float64)                           |
/// | result     | [B, H, 1, Dv]                                                                           |
///
/// A sequence begins with a state of zeros. Of the parameters log_decay and beta are those of the token, with
/// an Lk of 1: [B, H, 1] and so on; initial_state and key_lengths must not be given, is_causal and form say
/// nothing. Not differentiable: an error where a gradient is asked for, or a tensor has a forward-mode
/// tangent. `state` changes its version, as by PyTorch's own operations in place. Errors: as
/// `linear_attention`.
ATTEND_API at::Tensor linear_attention_step(const at::Tensor& query, const at::Tensor& key,
                                            const at::Tensor& value, at::Tensor& state,
                                            const LinearAttentionParams& params = {});

/// Rows for `random_features`, [num_features, head_dim] of float32 on the CPU: Gaussian each, orthogonal
/// within each block of head_dim rows, which lowers the variance (Choromanski 2021, section 2.4).
ATTEND_API at::Tensor orthogonal_projection(int64_t num_features, int64_t head_dim,
                                            const std::optional<at::Generator>& generator = {});

}  // namespace attend
