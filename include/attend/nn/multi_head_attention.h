#pragma once

#include <attend/export.h>
#include <attend/kv_cache.h>
#include <attend/mask.h>
#include <attend/positional_encoding.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <tuple>

namespace attend::nn {

/// How far a query sees to either side; -1: unbounded. See `attend::window`.
struct Window {
  int64_t left = -1;
  int64_t right = -1;
};

/// Options for `MultiHeadAttention`. A width or number of 0 stands for the default that is named.
struct ATTEND_API MultiHeadAttentionOptions {
  MultiHeadAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width of the queries and of the result.
  TORCH_ARG(int64_t, embed_dim);
  TORCH_ARG(int64_t, num_heads);
  /// How many heads keys and values have; divides num_heads. Default: num_heads; 1 is multi-query, what is
  /// between grouped-query attention.
  TORCH_ARG(int64_t, num_kv_heads) = 0;
  /// The width of the keys. Default: embed_dim.
  TORCH_ARG(int64_t, kdim) = 0;
  /// The width of the values. Default: embed_dim.
  TORCH_ARG(int64_t, vdim) = 0;
  /// The channels of a head. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The probability that a weight is dropped while training. Default: 0.
  TORCH_ARG(double, dropout) = 0.0;
  /// Whether the projections add a learned bias. Default: true.
  TORCH_ARG(bool, bias) = true;
  /// Cosine scores with a learned temperature per head (Henry 2020, Liu 2021): queries and keys are brought
  /// to length 1, and their product is multiplied by exp(logit_scale), at most 100. Default: false.
  TORCH_ARG(bool, qk_norm) = false;
  /// Rotary positions of queries and keys. Default: none.
  TORCH_ARG(std::optional<RotaryParams>, rotary) = std::nullopt;
  /// ALiBi with the slopes of `alibi_slopes`. Default: false.
  TORCH_ARG(bool, alibi) = false;
  /// Default: unbounded.
  TORCH_ARG(Window, window) = {};
  /// Scores stay within -softcap ... softcap, see `attend::softcap`; before ALiBi and masks. Default: 0,
  /// none.
  TORCH_ARG(double, softcap) = 0.0;
  /// A learned bias for each head and bucket of distances (T5, Raffel 2020), see `attend::relative_bias`.
  /// Default: none.
  TORCH_ARG(std::optional<RelativeBuckets>, relative_bias) = std::nullopt;
  /// Whether a learned score of each head joins the softmax's denominator (Miller 2023; Xiao 2024), see
  /// `AttentionParams::sinks`. Default: false.
  TORCH_ARG(bool, sinks) = false;
  /// Whether a query sees no key after its own position. Default: false.
  TORCH_ARG(bool, is_causal) = false;
};

/// What a call of `MultiHeadAttention` may say beside query, key and value.
struct MultiHeadAttentionInputs {
  /// Keys to ignore, [B, Lk] ([Lk] for a query of two dimensions): boolean, true = ignore; or floating, added
  /// to the scores.
  torch::Tensor key_padding_mask = {};
  /// [Lq, Lk] or [B * num_heads, Lq, Lk] ([num_heads, Lq, Lk] for a query of two dimensions): boolean, true =
  /// must not attend; or floating, added to the scores. As in torch.nn.MultiheadAttention: the opposite of
  /// what true means in `Mask`.
  torch::Tensor attn_mask = {};
  /// Beside these and the module's own; true = may attend.
  Mask mask = {};
  /// Keys and values are appended to it, and the queries attend, causally, to all that it holds. For a
  /// module or call that is causal, and without gradients (torch::NoGradGuard).
  KVCache* cache = nullptr;
  /// With a cache: how many of the tokens are a sequence's own, as `KVCache::append` takes it.
  torch::Tensor counts = {};
  /// With a cache: false leaves it as it is: the queries attend to all that it holds, not causally, and key
  /// and value are not looked at (the memory of a decoder, see `append`).
  bool appends = true;
  /// Whether a query of this call sees no key after its own position, as by the option.
  bool is_causal = false;
};

/// Multi-head attention (Vaswani 2017, section 3.2.2), with grouped heads (Ainslie 2023):
///
///     Q = query W_q^T + b_q, K, V likewise, in heads;  result = out_proj(heads of attention(Q, K, V))
///
/// | tensor | shape            |                                              |
/// | query  | [B, Lq, E]       | or without B, all three                      |
/// | key    | [B, Lk, kdim]    | default: the query (self-attention)          |
/// | value  | [B, Lk, vdim]    | default: the key                             |
/// | result | [B, Lq, E]       |                                              |
///
/// Parameters bear the names of torch.nn.MultiheadAttention, so that its state loads as it is: in_proj_weight
/// [(H + 2 Hkv) D, E] (queries, keys, values, one under the other), or where kdim or vdim is not embed_dim
/// q_proj_weight [H D, E], k_proj_weight [Hkv D, kdim], v_proj_weight [Hkv D, vdim]; in_proj_bias
/// [(H + 2 Hkv) D]; out_proj.weight [E, H D], out_proj.bias [E]. With qk_norm also logit_scale [H], with
/// relative_bias also relative_bias [buckets, H], with sinks also sinks [H].
///
/// Unlike there, a query that may attend to nothing gets the bias of out_proj, not NaN, and what true means
/// in masks is the same for any rank. Errors: c10::Error naming the argument, what was expected and what it
/// got.
class ATTEND_API MultiHeadAttentionImpl : public torch::nn::Cloneable<MultiHeadAttentionImpl> {
 public:
  MultiHeadAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : MultiHeadAttentionImpl(MultiHeadAttentionOptions(embed_dim, num_heads)) {}
  explicit MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options);

  void reset() override;
  void reset_parameters();
  void pretty_print(std::ostream& stream) const override;

  torch::Tensor forward(const torch::Tensor& query, const torch::Tensor& key = {},
                        const torch::Tensor& value = {}, const MultiHeadAttentionInputs& inputs = {});

  /// The result, and the weights: [B, Lq, Lk], the average over the heads, or [B, H, Lq, Lk] of each head
  /// (without B for a query of two dimensions). Dropout is not applied to them. This builds what `forward`
  /// need not.
  std::tuple<torch::Tensor, torch::Tensor> forward_with_weights(const torch::Tensor& query,
                                                                const torch::Tensor& key = {},
                                                                const torch::Tensor& value = {},
                                                                const MultiHeadAttentionInputs& inputs = {},
                                                                bool average = true);

  /// A cache for sequences of up to `capacity` tokens, of the parameters' dtype and device; where a window on
  /// the left is shorter than that, one that keeps no more than the window.
  KVCache make_cache(int64_t batch, int64_t capacity) const;

  /// Appends the projected keys and values to a cache, as `forward` does, without attending.
  void append(KVCache& cache, const torch::Tensor& key, const torch::Tensor& value = {},
              const torch::Tensor& counts = {});

  MultiHeadAttentionOptions options;
  torch::Tensor in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, logit_scale,
      relative_bias, sinks;
  torch::nn::Linear out_proj{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(torch::Tensor())},
                           {2, torch::nn::AnyValue(torch::Tensor())},
                           {3, torch::nn::AnyValue(MultiHeadAttentionInputs())})

 private:
  torch::Tensor project_out(const torch::Tensor& heads, int64_t query_dim);
};

/// Holder of `MultiHeadAttentionImpl`, to be used like the modules of `torch::nn`; its arguments may be given
/// in braces: `attention(x, {}, {}, {.cache = &cache})`.
class MultiHeadAttention : public torch::nn::ModuleHolder<MultiHeadAttentionImpl> {
 public:
  using torch::nn::ModuleHolder<MultiHeadAttentionImpl>::ModuleHolder;
  using Impl = MultiHeadAttentionImpl;

  torch::Tensor operator()(const torch::Tensor& query, const torch::Tensor& key = {},
                           const torch::Tensor& value = {}, const MultiHeadAttentionInputs& inputs = {}) {
    return get()->forward(query, key, value, inputs);
  }
};

}  // namespace attend::nn
