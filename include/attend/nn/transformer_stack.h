#pragma once

#include <attend/export.h>
#include <attend/nn/transformer_layer.h>
#include <attend/transformer_cache.h>
#include <torch/nn/modules/container/modulelist.h>

#include <optional>
#include <vector>

namespace attend::nn {

/// Options for a stack of layers.
struct TransformerStackOptions {
  /// A stack of `num_layers` equal layers.
  TransformerStackOptions(const TransformerLayerOptions& layer, int64_t num_layers)
      : layer_(layer), num_layers_(num_layers) {}
  /// The options of every layer.
  TORCH_ARG(TransformerLayerOptions, layer);
  /// The number of layers.
  TORCH_ARG(int64_t, num_layers);
  /// The mixers of the layers of an encoder; an empty factory means self-attention. If there are fewer than
  /// num_layers, they are repeated in order; more are an error. With {delta, delta, delta, nullptr} every
  /// fourth layer has self-attention. Default: the mixer of `layer`.
  TORCH_ARG(std::vector<MixerFactory>, mixers);
  /// Whether a norm follows the last layer. Default: false.
  TORCH_ARG(bool, final_norm) = false;
  /// With final_norm: the options of that norm, of width d_model. Default: the options of the norms in the
  /// layers.
  TORCH_ARG(std::optional<NormOptions>, final_norm_options) = std::nullopt;
  /// Whether a layer saves only its inputs for the backward pass, which recomputes the layer with the same
  /// dropout (activation checkpointing, Chen 2016). Default: false.
  TORCH_ARG(bool, checkpointing) = false;
};

/// A stack of encoder layers. Parameters: layers.N.*, and norm.* with final_norm.
class ATTEND_API TransformerEncoderImpl : public torch::nn::Cloneable<TransformerEncoderImpl> {
 public:
  /// A stack with these options.
  explicit TransformerEncoderImpl(const TransformerStackOptions& options);

  /// Registers the layers and the norm.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one in any layer, and changes nothing.
  void check(const torch::Tensor& src, const MultiHeadAttentionParams& params = {},
             TransformerCache* cache = nullptr) const;

  /// src [B, L, d_model] or [L, d_model] -> the same shape. `params` is passed to every layer and must not
  /// have a cache: `cache` has one for each layer. With mixers, which are causal, `params` must have neither
  /// masks nor `lengths`; its is_causal applies to the layers with self-attention.
  torch::Tensor forward(const torch::Tensor& src, const MultiHeadAttentionParams& params = {},
                        TransformerCache* cache = nullptr);

  /// Returns a cache for decoding with a causal encoder, for `batch` sequences of up to `capacity` tokens.
  /// The state of a mixer has no capacity, and gets the batch size of the first input. `dtype` is the dtype
  /// of keys and values, as in `MultiHeadAttentionImpl::make_cache`.
  TransformerCache make_cache(int64_t batch, int64_t capacity,
                              std::optional<at::ScalarType> dtype = {}) const;

  /// The options. The layers have copies of `layer`, so changes after construction must be made in the
  /// layers.
  TransformerStackOptions options;
  /// The layers, each a `TransformerEncoderLayer`.
  torch::nn::ModuleList layers{nullptr};
  /// The final norm; empty without final_norm.
  Norm norm{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(MultiHeadAttentionParams())},
                           {2, torch::nn::AnyValue(static_cast<TransformerCache*>(nullptr))})

 private:
  friend class TransformerImpl;
  torch::Tensor run(const torch::Tensor& src, const MultiHeadAttentionParams& params,
                    TransformerCache* cache);
};

/// Holder of `TransformerEncoderImpl`.
using TransformerEncoder = Holder<TransformerEncoderImpl>;

/// A stack of decoder layers. Parameters: layers.N.*, and norm.* with final_norm.
class ATTEND_API TransformerDecoderImpl : public torch::nn::Cloneable<TransformerDecoderImpl> {
 public:
  /// A stack with these options.
  explicit TransformerDecoderImpl(const TransformerStackOptions& options);

  /// Registers the layers and the norm.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one in any layer, and changes nothing.
  void check(const torch::Tensor& tgt, const torch::Tensor& memory, const MultiHeadAttentionParams& self = {},
             const MultiHeadAttentionParams& cross = {}, TransformerCache* cache = nullptr) const;

  /// Computes all layers; the arguments are those of `TransformerDecoderLayer`, with the same `self` and
  /// `cross` for every layer. With a cache, tgt are the next tokens, which attend to all earlier tokens, and
  /// `memory` must be undefined, since the cache contains its projections.
  torch::Tensor forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                        const MultiHeadAttentionParams& self = {}, const MultiHeadAttentionParams& cross = {},
                        TransformerCache* cache = nullptr);

  /// Returns a cache for up to `capacity` tokens that attend to this memory. The projections of the memory in
  /// each layer are computed here, once. Gradients must not be recorded (torch::NoGradGuard), since a cache
  /// has none. `dtype` is the dtype of keys and values, as in `MultiHeadAttentionImpl::make_cache`.
  TransformerCache make_cache(const torch::Tensor& memory, int64_t capacity,
                              const torch::Tensor& memory_key_padding_mask = {},
                              std::optional<at::ScalarType> dtype = {});

  /// The options. The layers have copies of `layer`, so changes after construction must be made in the
  /// layers.
  TransformerStackOptions options;
  /// The layers, each a `TransformerDecoderLayer`.
  torch::nn::ModuleList layers{nullptr};
  /// The final norm; empty without final_norm.
  Norm norm{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(MultiHeadAttentionParams())},
                           {3, torch::nn::AnyValue(MultiHeadAttentionParams())},
                           {4, torch::nn::AnyValue(static_cast<TransformerCache*>(nullptr))})

 private:
  friend class TransformerImpl;
  torch::Tensor run(const torch::Tensor& tgt, const torch::Tensor& memory,
                    const MultiHeadAttentionParams& self, const MultiHeadAttentionParams& cross,
                    TransformerCache* cache);
};

/// Holder of `TransformerDecoderImpl`.
using TransformerDecoder = Holder<TransformerDecoderImpl>;

}  // namespace attend::nn
