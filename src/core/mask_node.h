#pragma once

#include <ATen/core/Tensor.h>
#include <attend/mask.h>

#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "core/checks.h"

namespace attend {

/// The data of a `Mask`. It depends on no backend: functional/mask constructs and checks it, reference/mask.h
/// defines its meaning, and each backend has a visitor that translates it.
struct MaskNode {
  /// Query i may attend to key j if j <= i + Lk - Lq, or for Corner::top_left if j <= i.
  struct Causal {
    Corner corner;
  };
  /// Allowed if -left <= j - (i + Lk - Lq) <= right; -1 means unbounded.
  struct Window {
    int64_t left, right;
  };
  /// Allowed if j < lengths[b]; keys past the length must not be read.
  struct KeyLengths {
    at::Tensor lengths;  ///< int64 [B], a copy: kernels rely on lengths that were checked
  };
  /// Allowed if j < lengths[b]; keys past the length may be read, for a mask that is combined with another by
  /// `|`.
  struct Prefix {
    at::Tensor lengths;  ///< int64 [B], a copy
  };
  /// Allowed if ids[b, i + Lk - Lq] == ids[b, j]; a query for which i + Lk - Lq is negative is fully masked.
  struct Documents {
    at::Tensor ids;  ///< int64 [Lk] or [B, Lk], a copy, so that forward and backward use the same ids
  };
  /// Allowed if allowed[b, h, i, j].
  struct Dense {
    at::Tensor allowed;  ///< bool, the caller's own tensor; broadcasts to [B, H, Lq, Lk]
  };
  /// Allowed if function(position).
  struct Lambda {
    std::shared_ptr<const detail::MaskFunction> function;
  };
  /// Allowed if both masks allow it. Neither is the default mask.
  struct Both {
    Mask left, right;
  };
  /// Allowed if `inner`, which is not the default mask, does not allow it.
  struct Not {
    Mask inner;
  };

  using Kind = std::variant<Causal, Window, KeyLengths, Prefix, Documents, Dense, Lambda, Both, Not>;
  Kind kind;
};

inline Mask make_mask(MaskNode::Kind kind) {
  return Mask(std::make_shared<const MaskNode>(MaskNode{std::move(kind)}));
}

/// Returns the tensors of the mask that are not copies: they must not be changed before the gradients are
/// computed.
std::vector<at::Tensor> tensors_of(const Mask& mask);

/// Returns the key lengths, int64 [B], if the mask hides all keys past a length of each batch element;
/// otherwise undefined.
at::Tensor key_lengths_of(const Mask& mask);

/// Whether the mask is what ATen calls `is_causal`, which allows j <= i.
bool is_top_left_causal(const Mask& mask, const ScoreShape& shape);

}  // namespace attend
