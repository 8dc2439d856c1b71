#pragma once

#include <attend/export.h>
#include <attend/recurrent_state.h>
#include <torch/nn/modules/container/any.h>

#include <functional>

namespace attend::nn {

/// The interface by which a stack of layers checks the call of a mixer before any layer runs. The mixers of
/// this library implement it. If another mixer does not, and fails, the caches of the layers before it have
/// already changed.
class ATTEND_API CheckedMixer {
 public:
  virtual ~CheckedMixer() = default;
  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  virtual void check(const torch::Tensor& input, const RecurrentState* state) const = 0;
};

/// Makes the mixer of a Transformer layer: a module that maps [B, L, E] to the same shape, is causal, and
/// whose forward takes (torch::Tensor, RecurrentState*). An empty factory means softmax attention.
using MixerFactory = std::function<torch::nn::AnyModule()>;

/// Returns a factory of `GatedDeltaNet`, `Retention`, `GatedLinearAttention`, `LinearAttention` or any other
/// mixer: `as_mixer<GatedDeltaNet>(GatedDeltaNetOptions(512, 8))`.
template <typename Mixer, typename Options>
MixerFactory as_mixer(const Options& options) {
  return [options] { return torch::nn::AnyModule(Mixer(options)); };
}

}  // namespace attend::nn
