#include <ATen/ops/dropout.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <attend/nn/transformer.h>

#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "nn/checks.h"
#include "nn/onednn_linear.h"
#include "nn/rms_norm.h"

namespace attend::nn {
namespace {

using checks::ArgumentName;
using checks::fail;
using checks::in_module;

constexpr auto kEncoderLayer = "nn::TransformerEncoderLayer";
constexpr auto kDecoderLayer = "nn::TransformerDecoderLayer";

/// The names in a layer of what `MultiHeadAttention` calls by the inner name: options, and arguments.
constexpr ArgumentName kOptionNames[] = {{"embed_dim", "d_model"}, {"num_heads", "nhead"}};
constexpr ArgumentName kSourceNames[] = {{"query", "src"}, {"key", "src"}, {"value", "src"}};
constexpr ArgumentName kSelfNames[] = {{"query", "tgt"},
                                       {"key", "tgt"},
                                       {"value", "tgt"},
                                       {"key_padding_mask", "self.key_padding_mask"},
                                       {"attn_mask", "self.attn_mask"},
                                       {"counts", "self.counts"},
                                       {"cache", "self.cache"}};
constexpr ArgumentName kCrossNames[] = {{"query", "tgt"},
                                        {"key", "memory"},
                                        {"value", "memory"},
                                        {"key_padding_mask", "cross.key_padding_mask"},
                                        {"attn_mask", "cross.attn_mask"},
                                        {"counts", "cross.counts"},
                                        {"cache", "cross.cache"}};

const char* layer_name(const TransformerEncoderLayerImpl&) { return kEncoderLayer; }
const char* layer_name(const TransformerDecoderLayerImpl&) { return kDecoderLayer; }

void check_options(const char* name, const TransformerLayerOptions& options) {
  if (options.dim_feedforward() < 1) {
    fail(name, "dim_feedforward", "at least 1", c10::str(options.dim_feedforward()));
  }
  const auto has_width = [&](int64_t width) { return width == 0 || width == options.d_model(); };
  if (!has_width(options.attention().kdim()) || !has_width(options.attention().vdim())) {
    fail(name, "attention", c10::str("kdim and vdim of d_model, ", options.d_model()),
         c10::str(options.attention().kdim(), " and ", options.attention().vdim()));
  }
  if (!(options.layer_norm_eps() >= 0)) {
    fail(name, "layer_norm_eps", "a number of at least 0", c10::str(options.layer_norm_eps()));
  }
}

/// The options of the self-attention, with those of the layer.
MultiHeadAttentionOptions self_options(const TransformerLayerOptions& options) {
  auto attention = options.attention();
  return attention.embed_dim(options.d_model())
      .num_heads(options.nhead())
      .dropout(options.dropout())
      .bias(options.bias());
}

MultiHeadAttentionOptions cross_options(const TransformerLayerOptions& options) {
  return MultiHeadAttentionOptions(options.d_model(), options.nhead())
      .dropout(options.dropout())
      .bias(options.bias());
}

template <typename Layer>
MultiHeadAttention register_attention(Layer& layer, const char* name,
                                      const MultiHeadAttentionOptions& options) {
  return in_module(layer_name(layer), name, kOptionNames,
                   [&] { return layer.register_module(name, MultiHeadAttention(options)); });
}

/// Registers what an encoder's and a decoder's layer have in common.
template <typename Layer>
void register_common(Layer& layer) {
  const auto& options = layer.options;
  layer.linear1 = layer.register_module(
      "linear1", make_linear(options.d_model(), options.dim_feedforward(), options.bias()));
  layer.linear2 = layer.register_module(
      "linear2", make_linear(options.dim_feedforward(), options.d_model(), options.bias()));
  if (options.activation() == Activation::swiglu) {
    layer.linear_gate = layer.register_module(
        "linear_gate", make_linear(options.d_model(), options.dim_feedforward(), options.bias()));
  }
  layer.norm1 = layer.register_module("norm1", Norm(options));
  layer.norm2 = layer.register_module("norm2", Norm(options));
}

/// Dropout of the layer's probability, while training.
template <typename Layer>
torch::Tensor dropped(const Layer& layer, const torch::Tensor& x) {
  return at::dropout(x, layer.options.dropout(), layer.is_training());
}

template <typename Layer>
torch::Tensor activated(const Layer& layer, const torch::Tensor& x) {
  switch (layer.options.activation()) {
    case Activation::relu:
      return linear(x, *layer.linear1, Pointwise::relu);
    case Activation::gelu:
      return linear(x, *layer.linear1, Pointwise::gelu);
    default:
      return at::silu(linear(x, *layer.linear_gate)) * linear(x, *layer.linear1);
  }
}

template <typename Layer>
torch::Tensor feed_forward(const Layer& layer, const torch::Tensor& x) {
  return linear(dropped(layer, activated(layer, x)), *layer.linear2);
}

/// x and a part of the layer, with dropout, a residual and a norm.
template <typename Layer, typename Part>
torch::Tensor with_residual(const Layer& layer, Norm& norm, const torch::Tensor& x, Part part) {
  return layer.options.norm_first() ? x + dropped(layer, part(norm(x))) : norm(x + dropped(layer, part(x)));
}

/// Between [B, L, E] and what the options say.
torch::Tensor batch_first(const TransformerLayerOptions& options, const torch::Tensor& tensor) {
  const bool is_other = tensor.defined() && tensor.dim() == 3 && !options.batch_first();
  return is_other ? tensor.transpose(0, 1) : tensor;
}

void check_mixer_inputs(const torch::nn::AnyModule& mixer, const MultiHeadAttentionInputs& inputs,
                        const RecurrentState* state) {
  if (mixer.is_empty()) {
    if (state != nullptr) fail(kEncoderLayer, "state", "none without a mixer", "a RecurrentState");
    return;
  }
  const auto refuse = [](const char* argument, bool is_given) {
    if (is_given) fail(kEncoderLayer, argument, "none beside a mixer, which is causal by itself", "one");
  };
  refuse("key_padding_mask", inputs.key_padding_mask.defined());
  refuse("attn_mask", inputs.attn_mask.defined());
  refuse("mask", inputs.mask.defined());
  refuse("counts", inputs.counts.defined());
  refuse("cache", inputs.cache != nullptr);
}

void print_options(std::ostream& stream, const char* name, const TransformerLayerOptions& options) {
  stream << "attend::nn::" << name << "(d_model=" << options.d_model() << ", nhead=" << options.nhead()
         << ", dim_feedforward=" << options.dim_feedforward() << ", dropout=" << options.dropout()
         << ", norm_first=" << (options.norm_first() ? "true" : "false");
  if (options.activation() == Activation::gelu) stream << ", activation=gelu";
  if (options.activation() == Activation::swiglu) stream << ", activation=swiglu";
  if (!options.batch_first()) stream << ", batch_first=false";
  stream << ")";
}

}  // namespace

// ---- the norm

NormImpl::NormImpl(const TransformerLayerOptions& options)
    : width_(options.d_model()),
      kind_(options.norm()),
      eps_(options.layer_norm_eps()),
      has_bias_(options.bias() && options.norm() == NormKind::layer_norm) {
  reset();
}

void NormImpl::reset() {
  weight = register_parameter("weight", at::ones({width_}));
  if (has_bias_) bias = register_parameter("bias", at::zeros({width_}));
}

void NormImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::Norm(" << (kind_ == NormKind::rms_norm ? "rms_norm" : "layer_norm") << ", " << width_
         << ", eps=" << eps_ << ")";
}

torch::Tensor NormImpl::forward(const torch::Tensor& x) {
  return kind_ == NormKind::rms_norm ? rms_norm(x, weight, eps_)
                                     : at::layer_norm(x, {width_}, weight, bias, eps_);
}

// ---- the encoder's layer

TransformerEncoderLayerImpl::TransformerEncoderLayerImpl(const TransformerLayerOptions& options_)
    : options(options_) {
  reset();
}

void TransformerEncoderLayerImpl::reset() {
  check_options(kEncoderLayer, options);
  if (options.mixer()) {
    mixer = in_module(kEncoderLayer, "mixer", {}, options.mixer());
    register_module("mixer", mixer.ptr());
  } else {
    self_attn = register_attention(*this, "self_attn", self_options(options));
  }
  register_common(*this);
}

void TransformerEncoderLayerImpl::pretty_print(std::ostream& stream) const {
  print_options(stream, "TransformerEncoderLayer", options);
}

torch::Tensor TransformerEncoderLayerImpl::forward(const torch::Tensor& src,
                                                   const MultiHeadAttentionInputs& inputs,
                                                   RecurrentState* state) {
  check_mixer_inputs(mixer, inputs, state);
  check_input(kEncoderLayer, "src", src, options.d_model(), {"src", src, options.batch_first()},
              linear1->weight);
  auto x = batch_first(options, src);
  x = with_residual(*this, norm1, x, [&](const torch::Tensor& y) {
    if (!mixer.is_empty()) {
      return in_module(kEncoderLayer, "mixer", {}, [&] { return mixer.forward(y, state); });
    }
    return in_module(kEncoderLayer, "self_attn", kSourceNames, [&] { return self_attn(y, {}, {}, inputs); });
  });
  x = with_residual(*this, norm2, x, [&](const torch::Tensor& y) { return feed_forward(*this, y); });
  return batch_first(options, x);
}

// ---- the decoder's layer

TransformerDecoderLayerImpl::TransformerDecoderLayerImpl(const TransformerLayerOptions& options_)
    : options(options_) {
  reset();
}

void TransformerDecoderLayerImpl::reset() {
  check_options(kDecoderLayer, options);
  if (options.mixer()) fail(kDecoderLayer, "mixer", "none in a layer of a decoder", "one");
  self_attn = register_attention(*this, "self_attn", self_options(options));
  register_common(*this);
  multihead_attn = register_attention(*this, "multihead_attn", cross_options(options));
  norm3 = register_module("norm3", Norm(options));
}

void TransformerDecoderLayerImpl::pretty_print(std::ostream& stream) const {
  print_options(stream, "TransformerDecoderLayer", options);
}

torch::Tensor TransformerDecoderLayerImpl::forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                                                   const MultiHeadAttentionInputs& self,
                                                   const MultiHeadAttentionInputs& cross) {
  const bool is_cached = cross.cache != nullptr && !cross.appends;
  const FirstInput first{"tgt", tgt, options.batch_first()};
  check_input(kDecoderLayer, "tgt", tgt, options.d_model(), first, linear1->weight);
  if (!is_cached) check_input(kDecoderLayer, "memory", memory, options.d_model(), first, linear1->weight);
  auto x = batch_first(options, tgt);
  const auto attended = batch_first(options, memory);
  x = with_residual(*this, norm1, x, [&](const torch::Tensor& y) {
    return in_module(kDecoderLayer, "self_attn", kSelfNames, [&] { return self_attn(y, {}, {}, self); });
  });
  x = with_residual(*this, norm2, x, [&](const torch::Tensor& y) {
    return in_module(kDecoderLayer, "multihead_attn", kCrossNames,
                     [&] { return multihead_attn(y, attended, attended, cross); });
  });
  x = with_residual(*this, norm3, x, [&](const torch::Tensor& y) { return feed_forward(*this, y); });
  return batch_first(options, x);
}

}  // namespace attend::nn
