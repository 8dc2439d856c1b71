#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <cstdint>

namespace attend {

/// The state that a recurrent mixer (a module of linear attention) carries from one part of a sequence to the
/// next. A default-constructed state is the state before the first token. A part of one token without
/// gradients takes constant time and updates `memory` in place; any other part replaces the tensors, which
/// then carry the graph if gradients are recorded. Therefore a state is not copyable: use `clone` to keep a
/// snapshot.
struct ATTEND_API RecurrentState {
  RecurrentState() = default;
  RecurrentState(RecurrentState&&) noexcept = default;
  RecurrentState& operator=(RecurrentState&&) noexcept = default;

  /// Returns a state of the same contents with memory of its own. Gradients flow through the copy.
  RecurrentState clone() const;

  /// Replaces sequence b by the sequence that had index sequences[b] before the call, as beam search does.
  /// `sequences` is int64 [B'], in any order and with repetitions. Errors (c10::Error): another dtype or
  /// shape, or an index out of range.
  void select(const at::Tensor& sequences);

  /// [B, H, D, Dv], or with a normaliser [B, H, D, Dv + 1]; float32 (float64 for float64 inputs).
  at::Tensor memory;
  /// For `nn::GatedDeltaNet`, the last inputs of its convolutions: [B, conv_size - 1, channels].
  at::Tensor recent;
  /// The number of tokens so far.
  int64_t length = 0;
};

}  // namespace attend
