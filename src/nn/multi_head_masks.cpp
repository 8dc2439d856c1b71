#include "nn/multi_head_masks.h"

#include <ATen/ops/constant_pad_nd.h>

#include <vector>

#include "core/checks.h"
#include "functional/mask/materialize.h"
#include "nn/multi_head_options.h"

namespace attend::nn {
namespace {

/// The mask of the module's options and of `params.is_causal`. A cache that is appended to brings a causal
/// mask of its own, and enforces its own window.
Mask mask_of_options(const MultiHeadAttentionOptions& options, const MultiHeadAttentionParams& params) {
  if (params.cache != nullptr && !params.update_cache) return {};
  const auto& window = options.window();
  const bool appends = params.cache != nullptr;
  const bool is_causal = options.is_causal() || params.is_causal;
  const Mask causal = is_causal && !appends ? attend::causal() : Mask();
  const bool is_bounded = window.left >= 0 || (window.right >= 0 && !appends);
  const bool is_enforced = appends && params.cache->options().window() == window.left + 1;
  return is_bounded && !is_enforced ? causal & attend::window(window.left, window.right) : causal;
}

/// The score modifications of the module's options, which come before added masks.
ScoreMod score_mod_of_options(const MultiHeadAttentionImpl& module, at::Device device) {
  const auto& options = module.options;
  ScoreMod result;
  if (options.softcap() != 0) result = softcap(options.softcap());
  if (options.alibi()) result = result.then(alibi(alibi_slopes(options.num_heads()).to(device)));
  if (const auto& buckets = options.relative_bias()) {
    result = result.then(attend::relative_bias(module.relative_bias, *buckets));
  }
  return result;
}

/// The same mask before `extra` more keys, which it does not hide.
Mask with_extra_keys(const Mask& mask, const ScoreShape& shape, int64_t extra, at::Device device) {
  if (extra == 0 || !mask.defined()) return mask;
  const auto allowed = materialize("attention", mask, shape, /*query_dim=*/4, device);
  return dense(at::constant_pad_nd(allowed.expand({-1, -1, -1, shape.keys}), {0, extra}, true));
}

/// Applies a mask of torch.nn.MultiheadAttention that broadcasts to the scores: boolean, true = must not
/// attend, or floating, added. It is extended by `extra` keys that it neither hides nor changes.
void hide_or_add(torch::Tensor mask, int64_t extra, Masks& masks) {
  if (extra > 0) mask = at::constant_pad_nd(mask, {0, extra}, 0);
  if (mask.scalar_type() == at::kBool) {
    masks.mask = masks.mask & dense(mask.logical_not());
  } else {
    masks.score_mod = masks.score_mod.then(bias(mask));
  }
}

void check_torch_mask(const char* argument, const torch::Tensor& mask, bool has_shape,
                      const std::string& shape) {
  checks::check_strided(kMultiHeadAttention, argument, mask);
  if (!has_shape || !(mask.scalar_type() == at::kBool || mask.is_floating_point())) {
    checks::fail(kMultiHeadAttention, argument, c10::str("a boolean or floating tensor ", shape),
                 checks::describe(mask));
  }
}

/// The mask of [B, Lk], or [Lk] for a query of two dimensions, as [B, 1, 1, Lk].
torch::Tensor checked_key_padding_mask(const torch::Tensor& mask, const ScoreShape& shape,
                                       int64_t query_dim) {
  const std::vector<int64_t> expected =
      query_dim == 3 ? std::vector{shape.batch, shape.keys} : std::vector{shape.keys};
  check_torch_mask("key_padding_mask", mask, mask.sizes().equals(expected),
                   c10::str(at::IntArrayRef(expected)));
  return mask.reshape({shape.batch, 1, 1, shape.keys});
}

/// The mask of [Lq, Lk] as it is, and that of [B * H, Lq, Lk] as [B, H, Lq, Lk].
torch::Tensor checked_attn_mask(const torch::Tensor& mask, const ScoreShape& shape) {
  const int64_t rows = shape.batch * shape.heads;
  const bool is_shared = mask.sizes().equals({shape.queries, shape.keys});
  check_torch_mask("attn_mask", mask, is_shared || mask.sizes().equals({rows, shape.queries, shape.keys}),
                   c10::str("[", shape.queries, ", ", shape.keys, "] or [", rows, ", ", shape.queries, ", ",
                            shape.keys, "]"));
  return is_shared ? mask : mask.unflatten(0, {shape.batch, shape.heads});
}

}  // namespace

Masks::Masks(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params,
             const ScoreShape& shape, int64_t query_dim, at::Device device)
    : mask(mask_of_options(module.options, params) & params.mask),
      score_mod(score_mod_of_options(module, device)) {
  const int64_t extra = num_extra_keys(module.options);
  mask = with_extra_keys(mask, shape, extra, device);
  if (params.key_padding_mask.defined()) {
    hide_or_add(checked_key_padding_mask(params.key_padding_mask, shape, query_dim), extra, *this);
  }
  if (params.attn_mask.defined()) hide_or_add(checked_attn_mask(params.attn_mask, shape), extra, *this);
}

}  // namespace attend::nn
