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
  /// so that the expectation of phi(q) phi(k) over Gaussian w is exp(scale * q k). The scale is not applied
  /// elsewhere.
  random_features,
};

/// The optional arguments of `linear_attention`.
struct LinearAttentionParams {
  /// The map that is applied to queries and keys.
  FeatureMap feature_map = FeatureMap::elu_plus_one;
  /// The projection of `random_features`, by which M features replace the D channels: [M, D] in the query's
  /// dtype or float32. It is required with `random_features`, and an error with other feature maps. See
  /// `orthogonal_projection`.
  at::Tensor projection = {};
  /// Whether each output is divided by its normaliser z_t phi(q_t).
  bool normalize = true;
  /// True: query i attends to the keys j <= i + Lk - Lq. False: every query reads the state after the last
  /// key.
  bool is_causal = false;
  /// The logarithm of the decay a_t, at most 0; -inf sets the state to zero. [H], [B, H, Lk], or per channel
  /// [B, H, Lk, D]. Default: no decay.
  at::Tensor log_decay = {};
  /// The write strength beta_t of the delta rule, in [0, 1]: [B, H, Lk]. Default: no delta rule.
  at::Tensor beta = {};
  /// Multiplies the query. Default: 1 with `normalize`, 1 / sqrt(D) without; always 1 / sqrt(D) with
  /// `random_features`.
  std::optional<double> scale = {};
  /// The final state of the preceding part of the sequence. Default: zeros.
  at::Tensor initial_state = {};
  /// The number of keys of each batch element: int64 or int32 [B], each in 0 ... Lk. Keys and values at or
  /// past the length are never read and leave the state and the normaliser unchanged.
  at::Tensor key_lengths = {};
  /// The implementation to use. It is an error if the requested backend cannot serve the call; see
  /// `explain_linear_attention`.
  Backend backend = Backend::automatic;
};

/// The results of `linear_attention`.
struct LinearAttentionResult {
  at::Tensor output;       ///< [B, H, Lq, Dv] in the query's dtype
  at::Tensor final_state;  ///< the state after the last key, in the layout of `initial_state`
};

/// Computes linear attention: each head has a state S [D, Dv], which each key updates and each query reads.
/// With the decay a_t, and with q_t and k_t after the feature map phi:
///
///     S_t = diag(a_t) S_{t-1} + k_t v_t^T                                          without beta
///     S_t = diag(a_t) S_{t-1} + beta_t k_t (v_t - (diag(a_t) S_{t-1})^T k_t)^T     with beta (delta rule)
///     z_t = diag(a_t) z_{t-1} + k_t                                                if normalize is set
///     o_t = S_t^T (scale * q_t), divided by z_t q_t if normalize is set (the scale does not cancel)
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
/// The decay of retention is exp(log_decay[h]). The group norm and gate of retention, and the normalization
/// of keys and queries in DeltaNet, are left to the caller: see nn/linear_attention.h.
///
/// dtype: float64, float32, bfloat16 or float16, the same for query, key and value; log_decay, beta and
/// initial_state in the query's dtype or float32. Sums, states and the final state are float32 (float64 for
/// float64), also under autocast. Differentiable, also twice and in forward mode, in all these tensors.
///
/// A NaN stays a NaN in every feature map. The output of a causal call at a step does not depend on later
/// steps: a NaN or infinity there, in any of the tensors, leaves it unchanged, bit for bit.
///
/// An output is 0, with gradients 0, if its normaliser has a magnitude below 1e-31 (1e-292 for float64),
/// since terms of so small a normaliser may have underflowed. For random features this limit applies in the
/// units described below. Decays are applied as products of factors of at most 1, and nothing is divided by a
/// decay, so that neither strong decays nor long sequences overflow. The delta rule itself diverges if beta_t
/// |k_t|^2 is above 2: normalize keys to length 1.
///
/// Random features are stabilised. With `normalize`, the maximum of the exponents of each query is subtracted
/// from them. Without beta, the features of keys and the states are divided by units, the running maximum of
/// the features of a head, so that no key is lost beside a later one. All query heads that share a key, and
/// all channels, have common units, which decay by the weakest of their decays: terms under a much stronger
/// decay can underflow. Initial and final states, and the state of `linear_attention_step`, are not divided
/// by units; as float32 they represent values from e^-87 to e^88.
///
/// Errors (c10::Error, before any work): a wrong number of dimensions, size, dtype, device or parameter; the
/// message states the argument, what was expected and what was given. Of the elements of tensors, only those
/// of key_lengths are checked: a log_decay above 0 or a beta outside 0 ... 1 is no error, but results may
/// overflow.
ATTEND_API LinearAttentionResult linear_attention(const at::Tensor& query, const at::Tensor& key,
                                                  const at::Tensor& value,
                                                  const LinearAttentionParams& params = {});

/// Returns the backend that `linear_attention` would use for the same arguments. `automatic` takes `fused` on
/// the CPU, and `reference` otherwise. `sdpa` computes softmax attention only, and serves no call. If
/// `params` requests a backend, only this backend is considered. If it cannot serve the call,
/// `linear_attention` would fail; here, `refused` states the reason and `chosen` is `reference`. All other
/// errors are those of `linear_attention`.
ATTEND_API Explanation explain_linear_attention(const at::Tensor& query, const at::Tensor& key,
                                                const at::Tensor& value,
                                                const LinearAttentionParams& params = {});

/// Decodes one token: returns the output of causal `linear_attention` for one token with `state` as the
/// initial state, and updates `state` in place to the final state. Time and memory do not depend on the
/// number of previous tokens.
///
/// | tensor     | shape                                                                                   |
/// | --- | --- |
/// | query      | [B, H, 1, D], or [B, 1, D] or [1, D] for one head                                       |
/// | key, value | [B, Hkv, 1, D], [B, Hkv, 1, Dv]                                                         |
/// | state      | as `initial_state`; contiguous, float32 (float64 for float64)                           |
/// | result     | [B, H, 1, Dv]                                                                           |
///
/// A sequence begins with a state of zeros. `log_decay` and `beta` are those of the token, with Lk = 1: [B,
/// H, 1] and so on. `initial_state` and `key_lengths` must not be given, and `is_causal` has no effect. Not
/// differentiable: it is an error if a gradient is required or a tensor has a forward-mode tangent. The
/// version counter of `state` is incremented, as by PyTorch's in-place operations. Errors: as
/// `linear_attention`; `state` is then unchanged.
ATTEND_API at::Tensor linear_attention_step(const at::Tensor& query, const at::Tensor& key,
                                            const at::Tensor& value, at::Tensor& state,
                                            const LinearAttentionParams& params = {});

/// Returns a random projection for `random_features`: float32 [num_features, head_dim] on the CPU. Its rows
/// are Gaussian, and orthogonal within each block of head_dim rows, which lowers the variance (Choromanski
/// 2021, section 2.4). The numbers are drawn from `generator`, by default the default generator of the CPU.
/// Errors: num_features or head_dim below 1.
ATTEND_API at::Tensor orthogonal_projection(int64_t num_features, int64_t head_dim,
                                            const std::optional<at::Generator>& generator = {});

}  // namespace attend
