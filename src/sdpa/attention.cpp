#include "sdpa/attention.h"

#include <ATen/SDPBackend.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/where.h>

#include <limits>
#include <optional>

#include "core/mask_node.h"
#include "core/score_mod_node.h"
#include "reference/keys.h"
#include "reference/mask.h"

namespace attend::sdpa {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// The mask and the bias as ATen takes them.
struct Hidden {
  std::optional<at::Tensor> attn_mask;
  bool is_causal = false;
  /// The rows that see at least one key, as a column [B, H, Lq, 1]; undefined where all do.
  at::Tensor seeing;
};

/// ATen's kernels want neighbouring keys of a mask side by side.
at::Tensor with_rows_of_keys(const at::Tensor& mask, const ScoreShape& shape) {
  if (mask.size(3) == shape.keys && mask.stride(3) == 1) return mask;
  return mask.expand({mask.size(0), mask.size(1), mask.size(2), shape.keys}).contiguous();
}

/// Where the score modification only adds a tensor to the scores: that tensor, in four dimensions that
/// broadcast to them; else undefined.
at::Tensor added_bias(const AttentionCall& call) {
  if (!call.score_mod.defined()) return {};
  const auto* bias = std::get_if<ScoreModNode::Bias>(&call.score_mod.node()->kind);
  if (bias == nullptr) return {};
  return checks::broadcastable("bias", "values", bias->values, call.shape(), call.query_dim);
}

/// A row that sees nothing is shown everything, so that no kernel divides by zero for it; its output is not
/// used.
Hidden hide(const AttentionCall& call) {
  const auto shape = call.shape();
  const auto bias = added_bias(call);
  if (!call.mask.defined() && !bias.defined()) return {};
  if (!bias.defined() && is_top_left_causal(call.mask, shape)) return {{}, true, {}};
  at::Tensor allowed;
  if (call.mask.defined()) {
    allowed = reference::allowed(call.mask, shape, call.query_dim, call.query.device());
  }
  if (!bias.defined()) {
    const auto seeing = allowed.any(-1, /*keepdim=*/true);
    return {with_rows_of_keys(allowed | ~seeing, shape), false, seeing};
  }
  const auto added = allowed.defined() ? at::where(allowed, bias, kMinusInfinity) : bias;
  const auto seeing = added.ne(kMinusInfinity).any(-1, /*keepdim=*/true);
  return {with_rows_of_keys(at::where(seeing, added, 0.0), shape), false, seeing};
}

/// What ATen's choice of a kernel depends on besides query, key and value: a mask's shape and dtype, and
/// whether it has a gradient.
std::optional<at::Tensor> stand_in_mask(const AttentionCall& call) {
  const auto shape = call.shape();
  const auto bias = added_bias(call);
  if (bias.defined()) return with_rows_of_keys(bias, shape);
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
  // The heads as they will be repeated.
  const auto one_head = [&](const at::Tensor& tensor) {
    return with_contiguous_rows(tensor).narrow(1, 0, 1).expand({-1, call.query.size(1), -1, -1});
  };
  const auto mask = stand_in_mask(call);
  const bool is_causal = call.mask.defined() && !mask.has_value();
  const auto choice =
      at::_fused_sdp_choice(with_contiguous_rows(call.query), one_head(call.key), one_head(call.value), mask,
                            /*dropout_p=*/0.0, is_causal, call.scale);
  return choice != static_cast<int64_t>(at::SDPBackend::math);
}

at::Tensor attention(const AttentionCall& call) {
  const auto heads = call.query.size(1);
  const auto prepare = [&](const at::Tensor& tensor) {
    return with_contiguous_rows(
        reference::repeat_heads(reference::hide_past_lengths(tensor, call.mask), heads));
  };
  const auto hidden = hide(call);
  const auto output = at::scaled_dot_product_attention(with_contiguous_rows(call.query), prepare(call.key),
                                                       prepare(call.value), hidden.attn_mask,
                                                       /*dropout_p=*/0.0, hidden.is_causal, call.scale);
  return hidden.seeing.defined() ? at::where(hidden.seeing, output, 0.0) : output;
}

}  // namespace attend::sdpa
