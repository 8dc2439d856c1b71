#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <attend/backend.h>
#include <attend/export.h>

#include <optional>

namespace attend {

/// The map phi that is applied to queries and keys before their product.
enum class FeatureMap {
  elu_plus_one,  ///< elu(x) + 1, elementwise (Katharopoulos 2020, equation 7)
  relu,          ///< max(x, 0), elementwise
  identity,      ///< x
  /// Positive random features of the softmax kernel (FAVOR+, Choromanski 2021, lemma 1): with x' =
  /// sqrt(scale) x and the rows w_m of `projection` [M, D], feature m is exp(w_m x' - |x'|^2 / 2) / sqrt(M),
  /// so that the expectation of phi(q) phi(k) over Gaussian w is exp(scale * q k). `scale` is used only here.
  random_features,
};

/// The optional arguments of `linear_attention`.
struct LinearAttentionParams {
  /// The map that is applied to queries and keys.
  FeatureMap feature_map = FeatureMap::elu_plus_one;
  /// [M, D] in the query's dtype or float32, required by `random_features` and an error without it; M
  /// features replace the D channels. See `orthogonal_projection`.
  at::Tensor projection = {};
  /// Divides each output by z_t phi(q_t).
  bool normalize = true;
  /// True: query i attends to the keys j <= i + Lk - Lq. False: every query reads the state after the last
  /// key.
  bool is_causal = false;
  /// Logarithm of the decay a_t, at most 0; -inf forgets everything. [H], [B, H, Lk], or per channel
  /// [B, H, Lk, D]. Default: no decay.
  at::Tensor log_decay = {};
  /// Write strength beta_t in [0, 1], [B, H, Lk]: the delta rule. Default: no delta rule.
  at::Tensor beta = {};
  /// Multiplies the query. Default: 1 if `normalize` is set, else 1 / sqrt(D); for `random_features` always
  /// 1 / sqrt(D).
  std::optional<double> scale = {};
  /// The final state of the preceding part of the sequence. Default: zeros.
  at::Tensor initial_state = {};
  /// int64 or int32 [B], each in 0 ... Lk: keys and values at or past the length are never read and leave the
  /// state and the normaliser unchanged.
  at::Tensor key_lengths = {};
  /// The implementation to use. Error if the requested one cannot serve the call; see
  /// `explain_linear_attention`.
  Backend backend = Backend::automatic;
};

/// The results of `linear_attention`.
struct LinearAttentionResult {
  at::Tensor output;       ///< [B, H, Lq, Dv] in the query's dtype
  at::Tensor final_state;  ///< the state after the last key, in the layout of `initial_state`
};

/// Linear attention: each head has a state S [D, Dv], which each key updates and each query reads. With
/// decay a_t and q_t, k_t = phi of the inputs:
///
///     S_t = diag(a_t) S_{t-1} + k_t v_t^T                                          without beta
///     S_t = diag(a_t) S_{t-1} + beta_t k_t (v_t - (diag(a_t) S_{t-1})^T k_t)^T     with beta (delta rule)
///     z_t = diag(a_t) z_{t-1} + k_t                                                if normalize is set
///     o_t = S_t^T (scale * q_t), over z_t q_t where normalize is set (so the scale does not cancel)
///
/// If is_causal is not set, every query reads the state after the last key.
///
/// | tensor        | shape                                                                            |
/// | --- | --- |
/// | query         | [B, H, Lq, D], or [B, L, D] or [L, D] for one head                               |
/// | key, value    | [B, Hkv, Lk, D], [B, Hkv, Lk, Dv]; Hkv divides H; as many dimensions as the      |
/// |               | query                                                                            |
/// | initial_state | [B, H, D, Dv], with normalize [B, H, D, Dv + 1], whose last column is z; with    |
/// |               | random features M instead of D                                                   |
///
/// For a query of three or two dimensions, decay, beta, state and result lack the same dimensions: log_decay
/// is [B, L] instead of [B, H, L], and so on.
///
/// | paper              | name                       | settings, with is_causal = true                     |
/// | --- | --- | --- |
/// | Katharopoulos 2020 | linear attention           | the defaults (causal or not)                        |
/// | Choromanski 2021   | Performer, FAVOR+          | random_features, projection                         |
/// | Sun 2023           | retention                  | identity, normalize = false, log_decay [H]          |
/// | Qin 2024           | lightning attention        | as retention, scale = 1                             |
/// | Dao & Gu 2024      | Mamba-2 (SSD)              | as retention, scale = 1, log_decay [B, H, L]        |
/// | Yang 2023          | gated linear attention     | identity, normalize = false, log_decay [B, H, L, D] |
/// | Yang 2024          | DeltaNet                   | identity, normalize = false, beta                   |
/// | Yang & Kautz 2024  | Gated DeltaNet             | as DeltaNet, log_decay [B, H, L]                    |
/// | Kimi Team 2025     | Kimi delta attention (KDA) | as DeltaNet, log_decay [B, H, L, D]                 |
///
/// Retention's decay is exp(log_decay[h]). Its group norm and gate, and the normalization of DeltaNet's keys
/// and queries, are left to the caller: see nn/linear_attention.h.
///
/// dtype: float64, float32, bfloat16 or float16, the same for query, key and value; log_decay, beta and
/// initial_state in the query's dtype or float32. Sums, states and the final state are float32 (float64 for
/// float64), also under autocast. Differentiable, also twice and in forward mode, in all of them.
///
/// An output whose normaliser is 0 is 0, with gradients 0; so is one whose normaliser has a magnitude below
/// 1e-31 (1e-292 for float64; for random features in the units described below), where its terms underflow.
/// Decays enter as products of factors of at most 1, and nothing is divided by them: no decay, however
/// strong, and no sequence, however long, makes them overflow. The delta rule itself diverges if beta_t
/// |k_t|^2 is above 2: normalize keys to length 1.
///
/// Random features are stabilised. With `normalize`, the exponents of each query are lowered by their
/// maximum. Without beta, the exponents of the keys, and the states with them, are lowered by the running
/// maximum of a head, so that no key is lost beside a later one. Heads that share a key, and channels, share
/// these units, which follow the weakest of their decays: the remainder under a much stronger decay can
/// underflow. Initial and final states are those of the features themselves, which float32 represents from
/// e^-87 to e^88, and so is the state of linear_attention_step.
///
/// Errors (c10::Error, before any work): a wrong number of dimensions, size, dtype, device or parameter; the
/// message names the argument, what was expected and what it got. Only the values of key_lengths are checked:
/// a log_decay above 0 or a beta outside 0 ... 1 is no error, but results may overflow.
ATTEND_API LinearAttentionResult linear_attention(const at::Tensor& query, const at::Tensor& key,
                                                  const at::Tensor& value,
                                                  const LinearAttentionParams& params = {});

/// The backend that `linear_attention` would use for the same arguments. `automatic` takes the first that can
/// serve the call: `fused` on the CPU, else `reference`. `sdpa` computes softmax attention only, and serves
/// no call. If `params` requests a backend, only that one is considered: if it cannot serve the call, which
/// is an error of `linear_attention`, `refused` states the reason and `chosen` is `reference`. Errors: as
/// `linear_attention`, but for this one.
ATTEND_API Explanation explain_linear_attention(const at::Tensor& query, const at::Tensor& key,
                                                const at::Tensor& value,
                                                const LinearAttentionParams& params = {});

/// One token of decoding: the output of causal `linear_attention` for one token after `initial_state`.
/// `state` is that state, and is updated in place to the final state. Time and memory do not depend on the
/// number of tokens before.
///
/// | tensor     | shape                                                                                   |
/// | --- | --- |
/// | query      | [B, H, 1, D], or [B, 1, D] or [1, D] for one head                                       |
/// | key, value | [B, Hkv, 1, D], [B, Hkv, 1, Dv]                                                         |
/// | state      | as `initial_state`; contiguous, float32 (float64 for float64)                           |
/// | result     | [B, H, 1, Dv]                                                                           |
///
/// A sequence begins with a state of zeros. `log_decay` and `beta` are those of the token, with an Lk of 1:
/// [B, H, 1] and so on. `initial_state` and `key_lengths` must not be given, and `is_causal` has no effect.
/// Not differentiable: it is an error if a gradient is required or a tensor has a forward-mode tangent. The
/// version counter of `state` increases, as with PyTorch's in-place operations. Errors: as
/// `linear_attention`; they leave `state` unchanged.
ATTEND_API at::Tensor linear_attention_step(const at::Tensor& query, const at::Tensor& key,
                                            const at::Tensor& value, at::Tensor& state,
                                            const LinearAttentionParams& params = {});

/// A projection for `random_features`: float32 [num_features, head_dim] on the CPU, whose rows are Gaussian
/// and orthogonal within each block of head_dim rows, which lowers the variance (Choromanski 2021,
/// section 2.4). Drawn from `generator`, or else the default generator of the CPU. Errors: a number below 1.
ATTEND_API at::Tensor orthogonal_projection(int64_t num_features, int64_t head_dim,
                                            const std::optional<at::Generator>& generator = {});

}  // namespace attend
