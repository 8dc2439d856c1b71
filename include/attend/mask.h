#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/mask_lambda.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace attend {

class MaskNode;

/// Which queries may attend to which keys. A small immutable value: copies share their contents.
///
/// True always means "may attend". Positions count from 0; query i of Lq and key j of Lk. Where Lq != Lk, the
/// last query is aligned with the last key, so that a query's own position among the keys is i + Lk - Lq: the
/// queries continue a sequence whose earlier keys are in a cache.
///
/// Masks are combined with `&` (both allow), `|` (either allows) and `~` (does not allow). A query that may
/// attend to nothing gets output 0, logsumexp -inf and gradients 0.
class ATTEND_API Mask {
 public:
  /// Every query may attend to every key.
  Mask() = default;
  /// The same as `dense(allowed)`; an undefined tensor is the default mask.
  Mask(const at::Tensor& allowed);  // NOLINT(google-explicit-constructor): `.mask = tensor` is meant to work
  explicit Mask(std::shared_ptr<const MaskNode> node) : node_(std::move(node)) {}

  /// False for the default mask, which hides nothing.
  bool defined() const { return node_ != nullptr; }
  const std::shared_ptr<const MaskNode>& node() const { return node_; }

 private:
  std::shared_ptr<const MaskNode> node_;
};

ATTEND_API Mask operator&(const Mask& left, const Mask& right);
ATTEND_API Mask operator|(const Mask& left, const Mask& right);
ATTEND_API Mask operator~(const Mask& mask);

/// Where the diagonal of a causal mask ends when Lq != Lk. For Lq = 2, Lk = 4 (x: may attend):
///
///     bottom_right  x x x .     top_left  x . . .
///                   x x x x               x x . .
enum class Corner { bottom_right, top_left };

/// Query i sees the keys j <= i + Lk - Lq (bottom_right) or j <= i (top_left, ATen's `is_causal`).
ATTEND_API Mask causal(Corner corner = Corner::bottom_right);

/// Sliding window: query i sees the keys j with i' - left <= j <= i' + right, where i' = i + Lk - Lq.
/// -1 leaves a side unbounded (FlashAttention's meaning). Error: a number below -1.
ATTEND_API Mask window(int64_t left, int64_t right);

/// Batch element b sees the keys j < lengths[b]. `lengths`: int64 or int32 [B], each in 0 ... Lk, on any
/// device; they are copied. Keys and values past the length are never read where this mask stands alone or is
/// joined by `&`.
ATTEND_API Mask key_lengths(const at::Tensor& lengths);

/// Batch element b sees the keys j < lengths[b]; meant for `causal() | prefix(lengths)`, a causal mask whose
/// first keys every query sees (Raffel 2020, "prefix LM"). `lengths`: int64 or int32 [B], each in 0 ... Lk,
/// on any device; they are copied.
ATTEND_API Mask prefix(const at::Tensor& lengths);

/// Sequences packed one after the other: a query sees the keys of its own document. `numbers`: int64 or int32
/// [Lk] or [B, Lk], on any device (they are copied), the document that each key belongs to; query i belongs
/// to that of key i + Lk - Lq, and sees nothing where there is no such key. Tiles between documents are
/// skipped where numbers ascend.
ATTEND_API Mask documents(const at::Tensor& numbers);

/// `allowed`: boolean, on the query's device, true = may attend. It broadcasts to the scores [B, H, Lq, Lk];
/// for a query of three dimensions also to [B, Lq, Lk], for one of two to [Lq, Lk]. An additive mask is a
/// score modification: `attend::bias`. It is not copied: as with ATen's operations, it is an error of the
/// backward pass where it was changed in place meanwhile.
ATTEND_API Mask dense(const at::Tensor& allowed);

namespace detail {
ATTEND_API Mask mask_mod_of(std::shared_ptr<const MaskFunction> function);
}

/// Any mask, as a lambda of where a score stands, that returns whether it counts:
///
///     attend::mask_mod([=](attend::Position at) { return at.key <= at.query || at.key < prefix; })
///
/// The lambda is a function of its argument alone, and is called from several threads at once. Nothing is
/// stored: the fused kernel asks it about each tile of scores, skips those where nothing counts, and asks
/// again about those where only some do. What it costs is a call per score and direction, a part of what is
/// skipped; in `causal() & mask_mod(lambda)` tiles that the first hides are not asked about. Error: a call
/// with 2^31 queries or keys.
template <typename Function>
Mask mask_mod(Function function) {
  return detail::mask_mod_of(std::make_shared<const detail::LambdaMask<Function>>(std::move(function)));
}

}  // namespace attend
