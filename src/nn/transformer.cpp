#include <attend/nn/transformer.h>
#include <torch/nn/init.h>

#include <algorithm>
#include <array>
#include <ostream>
#include <string_view>

#include "core/error_context.h"

namespace attend::nn {
namespace {

constexpr auto kTransformer = "nn::Transformer";

/// The names of options and arguments of the encoder and the decoder, each with the name that it has in
/// `Transformer`.
constexpr checks::ArgumentName kEncoderOptionNames[] = {{"num_layers", "num_encoder_layers"}};
constexpr checks::ArgumentName kDecoderOptionNames[] = {{"num_layers", "num_decoder_layers"}};
constexpr checks::ArgumentName kEncoderNames[] = {{"key_padding_mask", "src_key_padding_mask"},
                                                  {"attn_mask", "src_mask"}};
constexpr checks::ArgumentName kDecoderNames[] = {{"memory", "src"},
                                                  {"self.key_padding_mask", "tgt_key_padding_mask"},
                                                  {"self.attn_mask", "tgt_mask"},
                                                  {"cross.key_padding_mask", "memory_key_padding_mask"},
                                                  {"cross.attn_mask", "memory_mask"}};

TransformerLayerOptions layer_options(const TransformerOptions& options) {
  return TransformerLayerOptions(options.d_model(), options.nhead())
      .dim_feedforward(options.dim_feedforward())
      .dropout(options.dropout())
      .activation(options.activation())
      .norm(options.norm())
      .layer_norm_eps(options.layer_norm_eps())
      .batch_first(options.batch_first())
      .norm_first(options.norm_first())
      .bias(options.bias())
      .attention(options.attention());
}

/// Whether `reset_parameters` initialises a parameter of this name: the same as in torch.nn.Transformer, and
/// linear_gate, which torch.nn lacks, as a further weight of the feed-forward network.
bool is_initialised_here(std::string_view name) {
  constexpr std::array<std::string_view, 5> kWeights = {"in_proj_weight", "out_proj.weight", "linear1.weight",
                                                        "linear2.weight", "linear_gate.weight"};
  return std::ranges::any_of(kWeights, [=](std::string_view weight) { return name.ends_with(weight); });
}

/// The arguments of the encoder and the decoder.
struct PartParams {
  explicit PartParams(const TransformerParams& params)
      : source{.key_padding_mask = params.src_key_padding_mask, .attn_mask = params.src_mask},
        self{.key_padding_mask = params.tgt_key_padding_mask,
             .attn_mask = params.tgt_mask,
             .mask = params.tgt_is_causal ? causal() : Mask()},
        cross{.key_padding_mask = params.memory_key_padding_mask, .attn_mask = params.memory_mask} {}

  MultiHeadAttentionParams source, self, cross;
};

}  // namespace

TransformerImpl::TransformerImpl(const TransformerOptions& options_) : options(options_) { reset(); }

void TransformerImpl::reset() {
  const auto stack = [this](int64_t num_layers) {
    return TransformerStackOptions(layer_options(options), num_layers)
        .final_norm(true)
        .final_norm_options(options.final_norm_options())
        .checkpointing(options.checkpointing());
  };
  encoder = checks::in_module(kTransformer, "encoder", kEncoderOptionNames, [&] {
    return register_module("encoder", TransformerEncoder(stack(options.num_encoder_layers())));
  });
  decoder = checks::in_module(kTransformer, "decoder", kDecoderOptionNames, [&] {
    return register_module("decoder", TransformerDecoder(stack(options.num_decoder_layers())));
  });
  reset_parameters();
}

void TransformerImpl::reset_parameters() {
  for (auto& parameter : named_parameters()) {
    if (is_initialised_here(parameter.key())) torch::nn::init::xavier_uniform_(parameter.value());
  }
}

void TransformerImpl::pretty_print(std::ostream& stream) const { stream << "attend::nn::Transformer"; }

void TransformerImpl::check(const torch::Tensor& src, const torch::Tensor& tgt,
                            const TransformerParams& params) const {
  const PartParams parts(params);
  checks::in_module(kTransformer, "encoder", kEncoderNames, [&] { encoder->check(src, parts.source); });
  // The memory has the shape, dtype and device of src, which stands for it here.
  checks::in_module(kTransformer, "decoder", kDecoderNames,
                    [&] { decoder->check(tgt, src, parts.self, parts.cross); });
}

torch::Tensor TransformerImpl::forward(const torch::Tensor& src, const torch::Tensor& tgt,
                                       const TransformerParams& params) {
  check(src, tgt, params);
  const PartParams parts(params);
  const auto memory = encoder->run(src, parts.source, nullptr);
  return decoder->run(tgt, memory, parts.self, parts.cross, nullptr);
}

}  // namespace attend::nn
