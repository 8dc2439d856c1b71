#pragma once

#include <attend/recurrent_state.h>
#include <torch/nn/modules/container/any.h>

#include <functional>

namespace attend::nn {

/// Makes the mixer of a Transformer layer: a module that maps [B, L, E] to the same shape, is causal, and
/// whose forward takes (torch::Tensor, RecurrentState*). An empty factory means softmax attention.
using MixerFactory = std::function<torch::nn::AnyModule()>;

/// A factory of `GatedDeltaNet`, `Retention`, `GatedLinearAttention`, `LinearAttention` or a module of your
/// own: `as_mixer<GatedDeltaNet>(GatedDeltaNetOptions(512, 8))`.
template <typename Mixer, typename Options>
MixerFactory as_mixer(const Options& options) {
  return [options] { return torch::nn::AnyModule(Mixer(options)); };
}

}  // namespace attend::nn
