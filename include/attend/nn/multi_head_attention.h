#pragma once

#include <attend/detail/by_name.h>
#include <attend/export.h>
#include <attend/kv_cache.h>
#include <attend/nn/module_holder.h>
#include <attend/nn/module_mask.h>
#include <attend/positional_encoding.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>

#include <optional>
#include <tuple>

namespace attend::nn {

/// The number of keys on either side of its own position that a query may attend to; -1 means unbounded. See
/// `attend::window`.
struct Window {
  int64_t left = -1;   ///< the number of keys before the query's position
  int64_t right = -1;  ///< the number of keys after the query's position
};

/// Options for `MultiHeadAttention`. 0 selects a default that is stated in words.
struct MultiHeadAttentionOptions {
  /// Options of the attention in a Transformer layer, which sets embed_dim and num_heads.
  MultiHeadAttentionOptions() : MultiHeadAttentionOptions(0, 0) {}
  /// Options with the defaults below.
  MultiHeadAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width E of the queries and of the result.
  TORCH_ARG(int64_t, embed_dim);
  /// The number of heads H.
  TORCH_ARG(int64_t, num_heads);
  /// The number of heads of keys and values, Hkv, a divisor of num_heads: num_heads for multi-head attention,
  /// 1 for multi-query attention, any other for grouped-query attention. Default: num_heads.
  TORCH_ARG(int64_t, num_kv_heads) = 0;
  /// The width of the keys. Default: embed_dim.
  TORCH_ARG(int64_t, kdim) = 0;
  /// The width of the values. Default: embed_dim.
  TORCH_ARG(int64_t, vdim) = 0;
  /// The width D of a head. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The probability that a weight is dropped while training. Default: 0.
  TORCH_ARG(double, dropout) = 0.0;
  /// Whether the projections add a learned bias. Default: true.
  TORCH_ARG(bool, bias) = true;
  /// Whether inputs and result are [B, L, width]; if false, [L, B, width], the only layout of
  /// torch::nn::MultiheadAttention. Default: true.
  TORCH_ARG(bool, batch_first) = true;
  /// Whether a learned key and value, bias_k and bias_v, follow the projected ones, as in
  /// torch::nn::MultiheadAttention. Every query may attend to this key, whatever the masks hide. The key has
  /// no position, so that causality, windows and rotary embeddings do not apply to it, and the option can't
  /// be combined with alibi, relative_bias, cosine_similarity or a cache. With this option, masks are stored
  /// as tensors. Default: false.
  TORCH_ARG(bool, add_bias_kv) = false;
  /// Whether a key and a value of zeros follow all others, as in torch::nn::MultiheadAttention. The
  /// restrictions of add_bias_kv apply. Default: false.
  TORCH_ARG(bool, add_zero_attn) = false;
  /// Whether scores are cosines with a learned temperature per head (Henry 2020, Liu 2021): queries and keys
  /// are scaled to length 1, and their product is multiplied by min(exp(logit_scale), 100). Default: false.
  TORCH_ARG(bool, cosine_similarity) = false;
  /// Rotary position embeddings of queries and keys. Default: none.
  TORCH_ARG(std::optional<RotaryParams>, rotary) = std::nullopt;
  /// Whether scores get the ALiBi bias with the slopes of `alibi_slopes`. Default: false.
  TORCH_ARG(bool, alibi) = false;
  /// The sliding window of keys that a query may attend to, around the query's own position; see
  /// `attend::window`. Default: unbounded.
  TORCH_ARG(Window, window) = {};
  /// The bound c of scores, c * tanh(score / c), applied before ALiBi and masks; see `attend::softcap`.
  /// Default: 0, none.
  TORCH_ARG(double, softcap) = 0.0;
  /// A learned bias for each head and bucket of distances (T5, Raffel 2020); see `attend::relative_bias`.
  /// Default: none.
  TORCH_ARG(std::optional<RelativeBuckets>, relative_bias) = std::nullopt;
  /// Whether the denominator of the softmax includes a learned score of each head (Miller 2023, Xiao 2024);
  /// see `AttentionParams::sinks`. Default: false.
  TORCH_ARG(bool, sinks) = false;
  /// Whether a query may attend only to keys up to its own position. Default: false.
  TORCH_ARG(bool, is_causal) = false;
};

/// The arguments of one call of `MultiHeadAttention` besides query, key and value. They are given by name:
/// `{.attn_mask = mask}`. (torch.nn's attention has the mask of the keys first, its layers have it last.)
///
/// Tensors are masks in the convention of torch.nn: where a boolean mask is true, a query must not attend. A
/// floating mask is added to the scores; its dtype must be the module's or float32, under autocast also the
/// autocast dtype, and with a cache also the cache's dtype. `mask` is a `Mask` of this library, not a tensor.
struct MultiHeadAttentionParams {
  /// Makes braces without names an error.
  detail::ByName by_name = detail::ByName();
  /// The keys to ignore, [B, Lk], or [Lk] for a query of two dimensions: boolean, true = ignore; or floating,
  /// added to the scores.
  torch::Tensor key_padding_mask = {};
  /// [Lq, Lk] or [B * num_heads, Lq, Lk] ([num_heads, Lq, Lk] for a query of two dimensions): boolean, true =
  /// must not attend; or floating, added to the scores.
  torch::Tensor attn_mask = {};
  /// Which keys a query may attend to: `causal()`, `key_lengths(lengths)`, `dense(allowed)`, ... It is
  /// combined with all other masks of the call and of the module: a query attends to a key if all of them
  /// allow it.
  ModuleMask mask = {};
  /// A cache to which the projected keys and values are appended. The queries then attend causally to all
  /// keys in the cache. A cache requires a causal module or call, and no gradients (torch::NoGradGuard).
  /// Keys, values and queries are converted to the dtype of the cache, attention is computed in this dtype,
  /// and the result is converted back. So under autocast a float32 cache stays float32.
  KVCache* cache = nullptr;
  /// With a cache: the number of tokens that belong to each sequence, as in `KVCache::append`.
  torch::Tensor lengths = {};
  /// With a cache: whether key and value are appended to it. If false, the queries attend to all keys in the
  /// cache, not causally, and key and value are not read (as for the memory of a decoder; see `append`).
  bool update_cache = true;
  /// Whether the queries of this call attend only to keys up to their own position, like the option
  /// is_causal.
  bool is_causal = false;
};

/// Multi-head attention (Vaswani 2017, section 3.2.2), with grouped heads (Ainslie 2023):
///
///     Q = query W_q^T + b_q, K and V likewise, split into heads
///     result = concat(heads of attention(Q, K, V)) W_o^T + b_o
///
/// | tensor | shape            | default                                      |
/// | ------ | ---------------- | -------------------------------------------- |
/// | query  | [B, Lq, E]       |                                              |
/// | key    | [B, Lk, kdim]    | the query (self-attention)                   |
/// | value  | [B, Lk, vdim]    | the key                                      |
/// | result | [B, Lq, E]       |                                              |
///
/// B may be missing in all of them; with batch_first(false) L comes before B.
///
/// Parameters bear the names of torch.nn.MultiheadAttention, so that its state dict loads as it is:
/// in_proj_weight [(H + 2 Hkv) D, E], the rows of queries, keys and values in this order; or, where kdim or
/// vdim is not embed_dim, q_proj_weight [H D, E], k_proj_weight [Hkv D, kdim] and v_proj_weight [Hkv D,
/// vdim]; in_proj_bias
/// [(H + 2 Hkv) D]; out_proj.weight [E, H D] and out_proj.bias [E]; with add_bias_kv also bias_k and bias_v
/// [1, 1, Hkv D]. Options of this library add logit_scale [H] (cosine_similarity), relative_bias [buckets, H]
/// and sinks [H].
///
/// There are two differences to torch.nn: the result of a fully masked query is the bias of out_proj, not
/// NaN, and the meaning of true in a mask does not depend on its number of dimensions. Errors: c10::Error
/// that states the argument, what was expected and what was given; the call then has changed nothing.
class ATTEND_API MultiHeadAttentionImpl : public torch::nn::Cloneable<MultiHeadAttentionImpl> {
 public:
  /// Multi-head attention with the default options.
  MultiHeadAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : MultiHeadAttentionImpl(MultiHeadAttentionOptions(embed_dim, num_heads)) {}
  /// Multi-head attention with these options.
  explicit MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options);

  /// Registers the parameters and initialises them.
  void reset() override;
  /// Initialises the parameters as torch.nn.MultiheadAttention does; relative_bias as T5 does.
  void reset_parameters();
  /// Prints the options that differ from their defaults.
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& query, const torch::Tensor& key = {}, const torch::Tensor& value = {},
             const MultiHeadAttentionParams& params = {}) const;

  /// Returns the result [B, Lq, E].
  torch::Tensor forward(const torch::Tensor& query, const torch::Tensor& key = {},
                        const torch::Tensor& value = {}, const MultiHeadAttentionParams& params = {});

  /// Returns the result, and the weights before dropout: [B, Lq, Lk], averaged over the heads, or [B, H, Lq,
  /// Lk] for each head; without B for a query of two dimensions. Lk includes the keys of add_bias_kv and
  /// add_zero_attn. Unlike `forward`, this function stores all weights.
  std::tuple<torch::Tensor, torch::Tensor> forward_with_weights(const torch::Tensor& query,
                                                                const torch::Tensor& key = {},
                                                                const torch::Tensor& value = {},
                                                                const MultiHeadAttentionParams& params = {},
                                                                bool average_attn_weights = true);

  /// Returns a cache for `batch` sequences of up to `capacity` tokens, on the device of the parameters and of
  /// the given dtype, by default that of the parameters. A float64 module requires float64, and only a
  /// float64 module allows it. With a left window below the capacity, sequences may be of any length, and the
  /// cache stores only the window.
  KVCache make_cache(int64_t batch, int64_t capacity, std::optional<at::ScalarType> dtype = {}) const;

  /// Appends the projected keys and values to a cache, as `forward` does, without attending.
  void append(KVCache& cache, const torch::Tensor& key, const torch::Tensor& value = {},
              const torch::Tensor& lengths = {});

  /// The options, with every default replaced by its value. A change after construction takes effect in the
  /// next call if the parameters fit the new value (dropout, softcap, window, is_causal, ...); otherwise that
  /// call fails.
  MultiHeadAttentionOptions options;
  /// The projections of queries, keys and values; undefined if the options do not need them.
  torch::Tensor in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias;
  /// The key and value of add_bias_kv.
  torch::Tensor bias_k, bias_v;
  /// The logarithms of the temperatures of cosine_similarity.
  torch::Tensor logit_scale;
  /// The table of relative_bias.
  torch::Tensor relative_bias;
  /// The scores of sinks.
  torch::Tensor sinks;
  /// The projection of the concatenated heads to the result.
  torch::nn::Linear out_proj{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(torch::Tensor())},
                           {2, torch::nn::AnyValue(torch::Tensor())},
                           {3, torch::nn::AnyValue(MultiHeadAttentionParams())})
};

/// Holder of `MultiHeadAttentionImpl`.
using MultiHeadAttention = Holder<MultiHeadAttentionImpl>;

}  // namespace attend::nn
