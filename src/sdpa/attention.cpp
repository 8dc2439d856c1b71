#include "sdpa/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/where.h>

#include <optional>

#include "core/dtypes.h"
#include "core/gradients.h"
#include "core/mask_node.h"
#include "core/score_mod_node.h"
#include "core/torch_private.h"
#include "reference/keys.h"
#include "reference/mask.h"
#include "reference/visible_keys.h"

namespace attend::sdpa {
namespace {

/// The mask and the bias of a call, as the arguments of ATen's function.
struct AtenMask {
  std::optional<at::Tensor> attn_mask = {};
  bool is_causal = false;
  /// A boolean column [B, H, Lq, 1] that is true for rows that are not fully masked; undefined if no row can
  /// be fully masked.
  at::Tensor rows_with_visible_key = {};
};

/// Returns the mask with the entries of each row adjacent in memory, as ATen's kernels require.
at::Tensor with_adjacent_keys(const at::Tensor& mask, const ScoreShape& shape) {
  if (mask.size(3) == shape.keys && mask.stride(3) == 1) return mask;
  return mask.expand({mask.size(0), mask.size(1), mask.size(2), shape.keys}).contiguous();
}

/// Returns the tensor that the score modification adds to the scores, with four dimensions that broadcast to
/// the scores; undefined if the score modification does anything else.
at::Tensor added_bias(const AttentionCall& call) {
  if (!call.score_mod.defined()) return {};
  const auto* bias = std::get_if<ScoreModNode::Bias>(&call.score_mod.node()->kind);
  if (bias == nullptr) return {};
  return checks::broadcastable("bias", "values", bias->values, call.shape(), call.query_dim);
}

/// Returns the arguments for ATen. All keys of a fully masked row become visible, so that no kernel divides
/// by zero; the output of such a row must be replaced by 0 afterwards.
AtenMask aten_mask(const AttentionCall& call) {
  const auto shape = call.shape();
  const auto bias = added_bias(call);
  if (!call.mask.defined() && !bias.defined()) return {};
  if (!bias.defined() && is_top_left_causal(call.mask, shape)) return {.is_causal = true};
  at::Tensor allowed;
  if (call.mask.defined()) {
    allowed = reference::allowed(call.mask, shape, call.query_dim, call.query.device());
  }
  if (!bias.defined()) {
    const auto is_visible = allowed.any(-1, /*keepdim=*/true);
    return {.attn_mask = with_adjacent_keys(allowed | ~is_visible, shape),
            .rows_with_visible_key = is_visible};
  }
  const auto added = allowed.defined() ? at::where(allowed, bias, kMinusInfinity) : bias;
  const auto is_visible = added.ne(kMinusInfinity).any(-1, /*keepdim=*/true);
  return {.attn_mask = with_adjacent_keys(at::where(is_visible, added, 0.0), shape),
          .rows_with_visible_key = is_visible};
}

/// Returns a stand-in for the mask of the call, for which ATen chooses the same kernel; nullopt if the call
/// passes no mask to ATen.
std::optional<at::Tensor> placeholder_mask(const AttentionCall& call) {
  const auto shape = call.shape();
  const auto bias = added_bias(call);
  if (bias.defined()) return with_adjacent_keys(bias, shape);
  if (!call.mask.defined() || is_top_left_causal(call.mask, shape)) return {};
  return at::empty({1, 1, 1, shape.keys}, call.query.options().dtype(at::kBool));
}

at::Tensor with_contiguous_rows(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}

}  // namespace

bool can_express_score_mod(const AttentionCall& call) {
  if (!call.score_mod.defined()) return true;
  const auto added = added_bias(call);
  return added.defined() && added.scalar_type() == call.query.scalar_type();
}

bool has_fused_kernel(const AttentionCall& call) {
  if (call.query.numel() == 0 || call.key.numel() == 0 || call.value.numel() == 0) return false;
  // ATen's choice of a kernel does not depend on the elements, so that an expanded head can stand for
  // repeated heads.
  const auto repeated = [&](const at::Tensor& tensor) {
    return with_contiguous_rows(tensor).narrow(1, 0, 1).expand({-1, call.query.size(1), -1, -1});
  };
  const auto mask = placeholder_mask(call);
  const bool is_causal = call.mask.defined() && !mask.has_value();
  return torch_private::has_fused_sdpa(with_contiguous_rows(call.query), repeated(call.key),
                                       repeated(call.value), mask, is_causal, call.scale);
}

at::Tensor attention(const AttentionCall& call) {
  // Heads of keys and values are repeated only if a gradient is needed: with enable_gqa, ATen sums the
  // gradients of the query heads that share a key in another order. The output has the same bits either way.
  const bool has_shared_heads = call.key.size(1) != call.query.size(1);
  const bool repeats_heads = has_shared_heads && any_needs_gradient(call.inputs());
  const auto prepared = [&](const at::Tensor& tensor) {
    const auto visible = reference::hide_past_lengths(tensor, call.mask);
    return with_contiguous_rows(repeats_heads ? reference::repeat_heads(visible, call.query.size(1))
                                              : visible);
  };
  const auto mask = aten_mask(call);
  const auto output = at::scaled_dot_product_attention(
      with_contiguous_rows(call.query), prepared(call.key), prepared(call.value), mask.attn_mask,
      /*dropout_p=*/0.0, mask.is_causal, call.scale, /*enable_gqa=*/has_shared_heads && !repeats_heads);
  return mask.rows_with_visible_key.defined() ? at::where(mask.rows_with_visible_key, output, 0.0) : output;
}

}  // namespace attend::sdpa
