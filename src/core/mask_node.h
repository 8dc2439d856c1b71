#pragma once

#include <ATen/core/Tensor.h>
#include <attend/mask.h>

#include <memory>
#include <vector>

#include "core/checks.h"
#include "cpu/mask/tiles.h"

namespace attend {

/// What a `Mask` is made of: a leaf for each kind of mask, and the three ways of combining them.
class MaskNode {
 public:
  MaskNode() = default;
  MaskNode(const MaskNode&) = delete;
  MaskNode& operator=(const MaskNode&) = delete;
  virtual ~MaskNode() = default;

  /// Fails, in the name of `function`, where the mask does not fit a call of this shape on this device.
  virtual void check(const char* function, const ScoreShape& shape, int64_t query_dim,
                     at::Device device) const = 0;

  /// The mask written out: boolean, four dimensions, broadcasts to the scores (of the rows of `shape`).
  virtual at::Tensor allowed(const ScoreShape& shape, int64_t query_dim, at::Device device) const = 0;

  /// The mask as the fused kernel asks for it; on the CPU.
  virtual std::unique_ptr<cpu::MaskTiles> bind(const ScoreShape& shape, int64_t query_dim) const = 0;

  /// Where the mask hides all keys past a length per batch element: those lengths, int64 [B]; else undefined.
  virtual at::Tensor key_lengths() const { return {}; }

  /// The caller's own tensors, which must not change before the gradients are computed.
  virtual std::vector<at::Tensor> tensors() const { return {}; }

  /// Whether the mask is what ATen calls `is_causal`: j <= i.
  virtual bool is_top_left_causal(const ScoreShape& /*shape*/) const { return false; }
};

/// Those of a mask's node, if it has one.
inline std::vector<at::Tensor> tensors_of(const Mask& mask) {
  return mask.defined() ? mask.node()->tensors() : std::vector<at::Tensor>();
}

}  // namespace attend
