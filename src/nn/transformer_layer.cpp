#include <attend/nn/transformer_layer.h>

#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "nn/checks.h"
#include "nn/feed_forward.h"
#include "nn/multi_head_call.h"

namespace attend::nn {
namespace {

using checks::ArgumentName;
using checks::fail;
using checks::in_module;

constexpr auto kEncoderLayer = "nn::TransformerEncoderLayer";
constexpr auto kDecoderLayer = "nn::TransformerDecoderLayer";

/// The names of options and arguments of `MultiHeadAttention`, each with the name that it has in a layer.
constexpr ArgumentName kOptionNames[] = {{"embed_dim", "d_model"}, {"num_heads", "nhead"}};
constexpr ArgumentName kSourceNames[] = {{"query", "src"}, {"key", "src"}, {"value", "src"}};
constexpr ArgumentName kSelfNames[] = {{"query", "tgt"},
                                       {"key", "tgt"},
                                       {"value", "tgt"},
                                       {"key_padding_mask", "self.key_padding_mask"},
                                       {"attn_mask", "self.attn_mask"},
                                       {"mask", "self.mask"},
                                       {"lengths", "self.lengths"},
                                       {"cache", "self.cache"}};
constexpr ArgumentName kCrossNames[] = {{"query", "tgt"},
                                        {"key", "memory"},
                                        {"value", "memory"},
                                        {"key_padding_mask", "cross.key_padding_mask"},
                                        {"attn_mask", "cross.attn_mask"},
                                        {"mask", "cross.mask"},
                                        {"lengths", "cross.lengths"},
                                        {"cache", "cross.cache"}};

const char* layer_name(const TransformerEncoderLayerImpl&) { return kEncoderLayer; }
const char* layer_name(const TransformerDecoderLayerImpl&) { return kDecoderLayer; }

/// Fails if an option of the attention differs from the same option of the layer, unless it has its default
/// in `MultiHeadAttentionOptions()`.
void check_attention(const char* name, const TransformerLayerOptions& options) {
  const auto& attention = options.attention();
  const auto expect = [&](const char* argument, bool is_consistent, const auto& expected, const auto& got) {
    if (!is_consistent) fail(name, argument, c10::str("the value of the layer, ", expected), c10::str(got));
  };
  const auto expect_width = [&](const char* argument, int64_t width, int64_t expected) {
    expect(argument, width == 0 || width == expected, expected, width);
  };
  expect_width("attention.embed_dim", attention.embed_dim(), options.d_model());
  expect_width("attention.num_heads", attention.num_heads(), options.nhead());
  expect_width("attention.kdim", attention.kdim(), options.d_model());
  expect_width("attention.vdim", attention.vdim(), options.d_model());
  expect("attention.dropout", attention.dropout() == 0 || attention.dropout() == options.dropout(),
         options.dropout(), attention.dropout());
  expect("attention.bias", attention.bias() || !options.bias(), "true", "false");
  expect("attention.batch_first", attention.batch_first() || !options.batch_first(), "true", "false");
}

/// Fails if an option was changed after construction to a value that the parts of the layer do not fit.
template <typename Layer>
void check_parts(const Layer& layer) {
  const auto& options = layer.options;
  const auto expect = [&](const char* option, bool fits) { check_option(layer_name(layer), option, fits); };
  const auto& weight = layer.linear1->weight;
  expect("options.d_model", weight.size(1) == options.d_model());
  expect("options.dim_feedforward", weight.size(0) == options.dim_feedforward());
  expect("options.activation", layer.linear_gate.is_empty() != has_gate(options.activation()));
  expect("options.bias", layer.linear1->bias.defined() == options.bias());
  if (!layer.self_attn.is_empty()) {
    expect("options.nhead", layer.self_attn->options.num_heads() == options.nhead());
  }
  check_probability(layer_name(layer), "options.dropout", options.dropout());
}

void check_layer_options(const char* name, const TransformerLayerOptions& options) {
  if (options.dim_feedforward() < 1) {
    fail(name, "dim_feedforward", "at least 1", c10::str(options.dim_feedforward()));
  }
  if (!(options.layer_norm_eps() >= 0)) {
    fail(name, "layer_norm_eps", "at least 0", c10::str(options.layer_norm_eps()));
  }
  check_attention(name, options);
}

/// Returns the options of the self-attention, completed by those of the layer. The layer calls it with the
/// batch first.
MultiHeadAttentionOptions self_options(const TransformerLayerOptions& options) {
  auto attention = options.attention();
  return attention.embed_dim(options.d_model())
      .num_heads(options.nhead())
      .dropout(options.dropout())
      .bias(options.bias())
      .batch_first(true);
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

/// Swaps L and B of a tensor of three dimensions unless the option batch_first is set.
torch::Tensor to_batch_first(const TransformerLayerOptions& options, const torch::Tensor& tensor) {
  const bool is_swapped = tensor.defined() && tensor.dim() == 3 && !options.batch_first();
  return is_swapped ? tensor.transpose(0, 1) : tensor;
}

torch::Tensor from_batch_first(const TransformerLayerOptions& options, const torch::Tensor& tensor) {
  return to_batch_first(options, tensor);
}

/// Fails if a layer with a mixer gets arguments for self-attention, or a layer with self-attention gets a
/// state.
void check_mixer_call(const torch::nn::AnyModule& mixer, const MultiHeadAttentionParams& params,
                      const RecurrentState* state) {
  if (mixer.is_empty()) {
    if (state != nullptr) fail(kEncoderLayer, "state", "none without a mixer", "a RecurrentState");
    return;
  }
  const auto refuse = [](const char* argument, bool is_given) {
    if (is_given) fail(kEncoderLayer, argument, "none with a mixer, which is causal by itself", "one");
  };
  refuse("key_padding_mask", params.key_padding_mask.defined());
  refuse("attn_mask", params.attn_mask.defined());
  refuse("mask", params.mask.defined());
  refuse("lengths", params.lengths.defined());
  refuse("cache", params.cache != nullptr);
}

/// Fails if a layer that appends to a cache would lose a gradient.
template <typename Layer>
void check_layer_gradient(const Layer& layer, const MultiHeadAttentionParams& params, at::TensorList inputs) {
  if (appends_to_cache(params)) check_no_gradient(layer_name(layer), layer, inputs);
}

const char* name_of(Activation activation) {
  switch (activation) {
    case Activation::relu:
      return "relu";
    case Activation::gelu:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_tanh";
    case Activation::silu:
      return "silu";
    case Activation::swiglu:
      return "swiglu";
    default:
      return "geglu";
  }
}

void print_layer(std::ostream& stream, const char* name, const TransformerLayerOptions& options) {
  stream << "attend::nn::" << name << "(d_model=" << options.d_model() << ", nhead=" << options.nhead()
         << ", dim_feedforward=" << options.dim_feedforward() << ", dropout=" << options.dropout()
         << ", norm_first=" << (options.norm_first() ? "true" : "false");
  if (options.activation() != Activation::relu) stream << ", activation=" << name_of(options.activation());
  if (!options.batch_first()) stream << ", batch_first=false";
  stream << ")";
}

}  // namespace

// ---- the encoder's layer

TransformerEncoderLayerImpl::TransformerEncoderLayerImpl(const TransformerLayerOptions& options_)
    : options(options_) {
  reset();
}

void TransformerEncoderLayerImpl::reset() {
  check_layer_options(kEncoderLayer, options);
  if (options.mixer()) {
    mixer = in_module(kEncoderLayer, "mixer", {}, options.mixer());
    register_module("mixer", mixer.ptr());
  } else {
    self_attn = register_attention(*this, "self_attn", self_options(options));
  }
  register_feed_forward(*this);
}

void TransformerEncoderLayerImpl::pretty_print(std::ostream& stream) const {
  print_layer(stream, "TransformerEncoderLayer", options);
}

void TransformerEncoderLayerImpl::check(const torch::Tensor& src, const MultiHeadAttentionParams& params,
                                        const RecurrentState* state) const {
  check_mixer_call(mixer, params, state);
  check_parts(*this);
  check_input(kEncoderLayer, "src", src, options.d_model(), {"src", src, options.batch_first()},
              linear1->weight);
  const auto x = to_batch_first(options, src);
  if (mixer.is_empty()) {
    in_module(kEncoderLayer, "self_attn", kSourceNames, [&] { check_call(*self_attn, {x, x, x}, params); });
    check_layer_gradient(*this, params, {src});
  } else if (const auto* const checked = dynamic_cast<const CheckedMixer*>(mixer.ptr().get())) {
    in_module(kEncoderLayer, "mixer", {}, [&] { checked->check(x, state); });
  }
}

torch::Tensor TransformerEncoderLayerImpl::forward(const torch::Tensor& src,
                                                   const MultiHeadAttentionParams& params,
                                                   RecurrentState* state) {
  check(src, params, state);
  return run(src, params, state);
}

/// Computes `forward` for checked arguments.
torch::Tensor TransformerEncoderLayerImpl::run(const torch::Tensor& src,
                                               const MultiHeadAttentionParams& params,
                                               RecurrentState* state) {
  auto x = to_batch_first(options, src);
  x = with_residual(*this, norm1, x, [&](const torch::Tensor& y) {
    if (mixer.is_empty()) return nn::run(*self_attn, {y, y, y}, params, options.dropout());
    return in_module(kEncoderLayer, "mixer", {}, [&] { return mixer.forward(y, state); });
  });
  x = with_residual(*this, norm2, x, [&](const torch::Tensor& y) { return feed_forward(*this, y); });
  return from_batch_first(options, x);
}

// ---- the decoder's layer

TransformerDecoderLayerImpl::TransformerDecoderLayerImpl(const TransformerLayerOptions& options_)
    : options(options_) {
  reset();
}

void TransformerDecoderLayerImpl::reset() {
  check_layer_options(kDecoderLayer, options);
  if (options.mixer()) fail(kDecoderLayer, "mixer", "none in a layer of a decoder", "one");
  self_attn = register_attention(*this, "self_attn", self_options(options));
  register_feed_forward(*this);
  multihead_attn = register_attention(*this, "multihead_attn", cross_options(options));
  norm3 = register_module("norm3", Norm(norm_options(options)));
}

void TransformerDecoderLayerImpl::pretty_print(std::ostream& stream) const {
  print_layer(stream, "TransformerDecoderLayer", options);
}

void TransformerDecoderLayerImpl::check(const torch::Tensor& tgt, const torch::Tensor& memory,
                                        const MultiHeadAttentionParams& self,
                                        const MultiHeadAttentionParams& cross) const {
  check_parts(*this);
  const FirstInput first{"tgt", tgt, options.batch_first()};
  check_input(kDecoderLayer, "tgt", tgt, options.d_model(), first, linear1->weight);
  if (!only_reads_cache(cross)) {
    check_input(kDecoderLayer, "memory", memory, options.d_model(), first, linear1->weight);
  }
  if (self.cache != nullptr && self.cache == cross.cache) {
    fail(kDecoderLayer, "cross.cache", "another cache than self.cache", "the same");
  }
  const auto x = to_batch_first(options, tgt), keys = to_batch_first(options, memory);
  in_module(kDecoderLayer, "self_attn", kSelfNames, [&] { check_call(*self_attn, {x, x, x}, self); });
  in_module(kDecoderLayer, "multihead_attn", kCrossNames,
            [&] { check_call(*multihead_attn, {x, keys, keys}, cross); });
  check_layer_gradient(*this, self, {tgt});
  check_layer_gradient(*this, cross, {tgt, memory});
}

torch::Tensor TransformerDecoderLayerImpl::forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                                                   const MultiHeadAttentionParams& self,
                                                   const MultiHeadAttentionParams& cross) {
  check(tgt, memory, self, cross);
  return run(tgt, memory, self, cross);
}

/// Computes `forward` for checked arguments.
torch::Tensor TransformerDecoderLayerImpl::run(const torch::Tensor& tgt, const torch::Tensor& memory,
                                               const MultiHeadAttentionParams& self,
                                               const MultiHeadAttentionParams& cross) {
  auto x = to_batch_first(options, tgt);
  const auto keys = to_batch_first(options, memory);
  x = with_residual(*this, norm1, x, [&](const torch::Tensor& y) {
    return nn::run(*self_attn, {y, y, y}, self, options.dropout());
  });
  x = with_residual(*this, norm2, x, [&](const torch::Tensor& y) {
    return nn::run(*multihead_attn, {y, keys, keys}, cross, options.dropout());
  });
  x = with_residual(*this, norm3, x, [&](const torch::Tensor& y) { return feed_forward(*this, y); });
  return from_batch_first(options, x);
}

}  // namespace attend::nn
