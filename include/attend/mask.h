#pragma once

#include <ATen/core/Tensor.h>
#include <attend/detail/mask_lambda.h>
#include <attend/export.h>
#include <attend/position.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace attend {

struct MaskNode;

/// Which queries may attend to which keys. A small immutable value: copies share their contents.
///
/// True always means "may attend". Queries i = 0 ... Lq - 1 and keys j = 0 ... Lk - 1 are counted from 0. If
/// Lq != Lk, the last query is aligned with the last key, so that query i has the position i + Lk - Lq among
/// the keys: the queries continue a sequence whose earlier keys are in a cache.
///
/// Masks are combined with `&` (both allow), `|` (either allows) and `~` (does not allow). A fully masked
/// row, a query that may attend to no key, has output 0, logsumexp -inf and gradients 0.
class ATTEND_API Mask {
 public:
  /// Every query may attend to every key.
  Mask() = default;
  /// The same as `dense(allowed)`; an undefined tensor is the default mask.
  Mask(const at::Tensor& allowed);  // NOLINT(google-explicit-constructor), for `.mask = tensor`
  /// For internal use: makes the mask with this data.
  explicit Mask(std::shared_ptr<const MaskNode> node) : node_(std::move(node)) {}

  /// False for the default mask, which hides nothing.
  bool defined() const { return node_ != nullptr; }
  /// For internal use: the data of the mask; null for the default mask.
  const std::shared_ptr<const MaskNode>& node() const { return node_; }

 private:
  std::shared_ptr<const MaskNode> node_;
};

/// A query may attend to a key where both masks allow it.
ATTEND_API Mask operator&(const Mask& left, const Mask& right);
/// A query may attend to a key where either mask allows it.
ATTEND_API Mask operator|(const Mask& left, const Mask& right);
/// A query may attend to a key where the mask does not allow it.
ATTEND_API Mask operator~(const Mask& mask);

/// The corner of the scores that the diagonal of a causal mask is aligned to, which matters when Lq != Lk.
/// For Lq = 2, Lk = 4 (x: may attend):
///
///     bottom_right  x x x .     top_left  x . . .
///                   x x x x               x x . .
enum class Corner {
  bottom_right,  ///< key j <= i + Lk - Lq: the last query may attend to every key
  top_left,      ///< key j <= i: the first query may attend to the first key alone
};

/// Query i may attend to the keys j <= i + Lk - Lq (bottom_right) or j <= i (top_left, ATen's `is_causal`).
ATTEND_API Mask causal(Corner corner = Corner::bottom_right);

/// Sliding window: query i may attend to the keys j with i' - left <= j <= i' + right, where i' = i + Lk -
/// Lq. -1 leaves a side unbounded (FlashAttention's meaning). Error: a value below -1.
ATTEND_API Mask window(int64_t left, int64_t right);

/// The queries of batch element b may attend to the keys j < lengths[b]. `lengths` is int64 or int32 [B],
/// each in 0 ... Lk, on any device; its values are copied. Keys and values past the length are never read if
/// this is the whole mask or an operand of `&`.
ATTEND_API Mask key_lengths(const at::Tensor& lengths);

/// The queries of batch element b may attend to the keys j < lengths[b]; intended for
/// `causal() | prefix(lengths)`, a causal mask whose first keys every query may attend to (Raffel 2020,
/// "prefix LM"). `lengths` is int64 or int32 [B], each in 0 ... Lk, on any device; its values are copied.
ATTEND_API Mask prefix(const at::Tensor& lengths);

/// Several sequences packed into one: a query may attend to the keys of its own document. `document_ids` is
/// int64 or int32 [Lk] or [B, Lk], on any device, and holds the document of each key; its values are copied.
/// Query i belongs to the document of key i + Lk - Lq, and is fully masked if there is no such key. If the
/// ids ascend, tiles of scores between different documents are skipped.
ATTEND_API Mask documents(const at::Tensor& document_ids);

/// A query may attend to a key where the boolean tensor `allowed` is true. `allowed` is on the query's device
/// and must broadcast to the scores: [B, H, Lq, Lk], for a query of three dimensions also [B, Lq, Lk], for a
/// query of two dimensions also [Lq, Lk]. It is not copied: as with ATen's operations, the backward pass
/// fails if `allowed` was changed in place after the forward pass. An additive mask is a score modification,
/// `attend::bias`.
ATTEND_API Mask dense(const at::Tensor& allowed);

namespace detail {
/// The mask of a lambda.
ATTEND_API Mask mask_mod_of(std::shared_ptr<const MaskFunction> function);
}  // namespace detail

/// The mask that a lambda defines. The lambda gets the position of a score, and returns whether the query may
/// attend to the key:
///
///     attend::mask_mod([=](attend::Position at) { return at.key <= at.query || at.key < prefix; })
///
/// The lambda must be a pure function of its argument; several threads call it concurrently. The mask is not
/// stored: the fused kernel evaluates the lambda on each tile of scores, skips fully masked tiles, and
/// evaluates the lambda again on partly masked tiles. The cost is about one call per score and pass; in
/// `causal() & mask_mod(lambda)` the lambda is not called for tiles that the first mask hides. Error: a call
/// of `attention` with 2^31 or more queries or keys.
template <typename Function>
Mask mask_mod(Function function) {
  return detail::mask_mod_of(std::make_shared<const detail::LambdaMask<Function>>(std::move(function)));
}

}  // namespace attend
