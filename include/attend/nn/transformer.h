#pragma once

#include <attend/export.h>
#include <attend/nn/transformer_stack.h>

#include <optional>

namespace attend::nn {

/// Options for `Transformer`. The defaults are those of torch.nn.Transformer but for batch_first.
struct TransformerOptions {
  /// A Transformer with the defaults below.
  explicit TransformerOptions(int64_t d_model = 512, int64_t nhead = 8) : d_model_(d_model), nhead_(nhead) {}
  /// The width of the inputs and of the result. Default: 512.
  TORCH_ARG(int64_t, d_model);
  /// The number of heads. Default: 8.
  TORCH_ARG(int64_t, nhead);
  /// The number of layers of the encoder. Default: 6.
  TORCH_ARG(int64_t, num_encoder_layers) = 6;
  /// The number of layers of the decoder. Default: 6.
  TORCH_ARG(int64_t, num_decoder_layers) = 6;
  /// As in `TransformerLayerOptions`. Default: 2048.
  TORCH_ARG(int64_t, dim_feedforward) = 2048;
  /// As in `TransformerLayerOptions`. Default: 0.1.
  TORCH_ARG(double, dropout) = 0.1;
  /// As in `TransformerLayerOptions`. Default: relu.
  TORCH_ARG(Activation, activation) = Activation::relu;
  /// As in `TransformerLayerOptions`. Default: layer_norm.
  TORCH_ARG(NormKind, norm) = NormKind::layer_norm;
  /// As in `TransformerLayerOptions`. Default: 1e-5.
  TORCH_ARG(double, layer_norm_eps) = 1e-5;
  /// The options of the norms after the last layers, of width d_model. Default: those of the layers' norms.
  TORCH_ARG(std::optional<NormOptions>, final_norm_options) = std::nullopt;
  /// As in `TransformerLayerOptions`. Default: true.
  TORCH_ARG(bool, batch_first) = true;
  /// As in `TransformerLayerOptions`. Default: false.
  TORCH_ARG(bool, norm_first) = false;
  /// As in `TransformerLayerOptions`. Default: true.
  TORCH_ARG(bool, bias) = true;
  /// Further options of the self-attention of encoder and decoder, as in `TransformerLayerOptions`.
  TORCH_ARG(MultiHeadAttentionOptions, attention);
  /// As in `TransformerStackOptions`. Default: false.
  TORCH_ARG(bool, checkpointing) = false;
};

/// The masks of one call of `Transformer`, with the names and meanings of torch.nn.Transformer: boolean, true
/// = must not attend (or: key to ignore); or floating, added to the scores. Their order is also that of
/// torch.nn.Transformer's arguments.
struct TransformerParams {
  torch::Tensor src_mask = {};              ///< [S, S] or [B * nhead, S, S]: in the encoder
  torch::Tensor tgt_mask = {};              ///< [L, L] or [B * nhead, L, L]: in the decoder
  torch::Tensor memory_mask = {};           ///< [L, S] or [B * nhead, L, S]: from the decoder to the memory
  torch::Tensor src_key_padding_mask = {};  ///< [B, S]: in the encoder
  torch::Tensor tgt_key_padding_mask = {};  ///< [B, L]: in the decoder
  torch::Tensor memory_key_padding_mask = {};  ///< [B, S]: from the decoder to the memory
  /// Whether the decoder's self-attention is causal, as with a tgt_mask that hides later positions.
  bool tgt_is_causal = false;
};

/// An encoder and a decoder, each with a final norm (Vaswani 2017). Parameters bear the names of
/// torch.nn.Transformer: encoder.layers.N.*, encoder.norm.*, decoder.layers.N.*, decoder.norm.*.
class ATTEND_API TransformerImpl : public torch::nn::Cloneable<TransformerImpl> {
 public:
  /// A Transformer with these options.
  explicit TransformerImpl(const TransformerOptions& options = TransformerOptions());

  /// Registers the encoder and the decoder, and initialises the parameters.
  void reset() override;
  /// Initialises the weights of the linear layers by Glorot's uniform distribution, as torch.nn.Transformer
  /// does. All other parameters keep the values that their own modules gave them.
  void reset_parameters();
  /// Prints the name; the layers print their options.
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one in any layer, and changes nothing.
  void check(const torch::Tensor& src, const torch::Tensor& tgt, const TransformerParams& params = {}) const;

  /// src [B, S, d_model], tgt [B, L, d_model], or both without B -> the shape of tgt.
  torch::Tensor forward(const torch::Tensor& src, const torch::Tensor& tgt,
                        const TransformerParams& params = {});

  /// The options. The layers have copies of their options, so changes after construction must be made in the
  /// layers.
  TransformerOptions options;
  /// The encoder, whose result is the decoder's memory.
  TransformerEncoder encoder{nullptr};
  /// The decoder.
  TransformerDecoder decoder{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(TransformerParams())})
};

/// Holder of `TransformerImpl`.
using Transformer = Holder<TransformerImpl>;

}  // namespace attend::nn
