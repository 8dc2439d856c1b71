#pragma once

#include <ATen/ops/dropout.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>
#include <attend/nn/transformer_layer.h>

#include "nn/onednn_linear.h"

// The parts that encoder layers and decoder layers have in common. `Layer` is the Impl class of either.

namespace attend::nn {

inline bool has_gate(Activation activation) {
  return activation == Activation::swiglu || activation == Activation::geglu;
}

/// Returns the options of the norms in a layer.
inline NormOptions norm_options(const TransformerLayerOptions& options) {
  return NormOptions(options.d_model())
      .kind(options.norm())
      .eps(options.layer_norm_eps())
      .bias(options.bias());
}

/// Registers the feed-forward network and the first two norms.
template <typename Layer>
void register_feed_forward(Layer& layer) {
  const auto& options = layer.options;
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return layer.register_module(name, make_linear(in, out, options.bias()));
  };
  layer.linear1 = linear("linear1", options.d_model(), options.dim_feedforward());
  layer.linear2 = linear("linear2", options.dim_feedforward(), options.d_model());
  if (has_gate(options.activation())) {
    layer.linear_gate = linear("linear_gate", options.d_model(), options.dim_feedforward());
  }
  layer.norm1 = layer.register_module("norm1", Norm(norm_options(options)));
  layer.norm2 = layer.register_module("norm2", Norm(norm_options(options)));
}

/// Applies dropout with the probability of the layer if it is in training mode.
template <typename Layer>
torch::Tensor dropout(const Layer& layer, const torch::Tensor& x) {
  return at::dropout(x, layer.options.dropout(), layer.is_training());
}

/// Returns the activations of the hidden layer of the feed-forward network.
template <typename Layer>
torch::Tensor hidden(const Layer& layer, const torch::Tensor& x) {
  switch (layer.options.activation()) {
    case Activation::relu:
      return linear(x, *layer.linear1, Pointwise::relu);
    case Activation::gelu:
      return linear(x, *layer.linear1, Pointwise::gelu);
    case Activation::gelu_tanh:
      return at::gelu(linear(x, *layer.linear1), "tanh");
    case Activation::silu:
      return at::silu(linear(x, *layer.linear1));
    case Activation::geglu:
      return linear(x, *layer.linear_gate, Pointwise::gelu) * linear(x, *layer.linear1);
    default:  // swiglu
      return at::silu(linear(x, *layer.linear_gate)) * linear(x, *layer.linear1);
  }
}

template <typename Layer>
torch::Tensor feed_forward(const Layer& layer, const torch::Tensor& x) {
  return linear(dropout(layer, hidden(layer, x)), *layer.linear2);
}

/// Returns x + dropout(part(norm(x))) with norm_first, and norm(x + dropout(part(x))) without.
template <typename Layer, typename Part>
torch::Tensor with_residual(const Layer& layer, Norm& norm, const torch::Tensor& x, Part part) {
  return layer.options.norm_first() ? x + dropout(layer, part(norm(x))) : norm(x + dropout(layer, part(x)));
}

}  // namespace attend::nn
