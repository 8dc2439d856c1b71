#pragma once

#include <attend/export.h>
#include <attend/recurrent_state.h>
#include <torch/nn/modules/container/any.h>

#include <functional>

namespace attend::nn {

/// What a mixer implements so that the stack it is in can refuse a call before any layer has run. The mixers
/// of this library do. One that does not, and refuses its input, leaves the layers before it changed.
class ATTEND_API CheckedMixer {
 public:
  virtual ~CheckedMixer() = default;
  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  virtual void check(const torch::Tensor& input, const RecurrentState* state) const = 0;
};

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
