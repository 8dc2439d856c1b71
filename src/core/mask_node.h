#pragma once

#include <ATen/core/Tensor.h>
#include <attend/mask.h>

#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "core/checks.h"

namespace attend {

/// The data of a `Mask`, which knows no backend: functional/mask constructs and checks it, reference/mask.h
/// defines its meaning, and each backend translates it by a visitor of its own.
struct MaskNode {
  /// Key j <= query i + Lk - Lq, or j <= i for Corner::top_left.
  struct Causal {
    Corner corner;
  };
  /// -left <= j - (i + Lk - Lq) <= right; -1: unbounded.
  struct Window {
    int64_t left, right;
  };
  /// j < lengths[b]; keys past the length must not be read.
  struct KeyLengths {
    at::Tensor lengths;  ///< int64 [B], a copy: kernels rely on lengths that were checked
  };
  /// j < lengths[b]; keys past the length may be read, for a mask that is combined with another by `|`.
  struct Prefix {
    at::Tensor lengths;  ///< int64 [B], a copy
  };
  /// ids[b, i + Lk - Lq] == ids[b, j]; false for queries that have no such position.
  struct Documents {
    at::Tensor ids;  ///< int64 [Lk] or [B, Lk], a copy, so that forward and backward use the same ids
  };
  /// allowed[b, h, i, j]
  struct Dense {
    at::Tensor allowed;  ///< bool, the caller's own tensor; broadcasts to [B, H, Lq, Lk]
  };
  /// function(position)
  struct Lambda {
    std::shared_ptr<const detail::MaskFunction> function;
  };
  /// Both masks allow it. Neither is the default mask.
  struct Both {
    Mask left, right;
  };
  /// The mask does not allow it. It is not the default mask.
  struct Not {
    Mask inner;
  };

  using Kind = std::variant<Causal, Window, KeyLengths, Prefix, Documents, Dense, Lambda, Both, Not>;
  Kind kind;
};

inline Mask make_mask(MaskNode::Kind kind) {
  return Mask(std::make_shared<const MaskNode>(MaskNode{std::move(kind)}));
}

/// The caller's own tensors in the mask, which must not change before the gradients are computed.
std::vector<at::Tensor> tensors_of(const Mask& mask);

/// Where the mask hides all keys past a length per batch element: those lengths, int64 [B]; else undefined.
at::Tensor key_lengths_of(const Mask& mask);

/// Whether the mask is what ATen calls `is_causal`: j <= i.
bool is_top_left_causal(const Mask& mask, const ScoreShape& shape);

}  // namespace attend
