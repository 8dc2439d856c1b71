#include "nn/multi_head_masks.h"

#include <ATen/ops/constant_pad_nd.h>

#include "functional/mask/materialize.h"
#include "nn/multi_head_options.h"

namespace attend::nn {
namespace {

/// Returns the mask that the options of the module and `params.is_causal` request. If keys are appended to a
/// cache, `KVCache::append` returns the causal mask and enforces the window of the cache, so that only a
/// different window is added here.
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

/// Returns the score modifications that the options of the module request. They precede masks that are added
/// to the scores.
ScoreMod score_mod_of_options(const MultiHeadAttentionImpl& module, at::ScalarType query_dtype,
                              at::Device device) {
  const auto& options = module.options;
  ScoreMod result;
  if (options.softcap() != 0) result = softcap(options.softcap());
  if (options.alibi()) result = result.then(alibi(alibi_slopes(options.num_heads()).to(device)));
  if (const auto& buckets = options.relative_bias()) {
    result = result.then(attend::relative_bias(beside_query(module.relative_bias, query_dtype), *buckets));
  }
  return result;
}

/// Returns the mask extended by `extra` keys, which it does not hide.
Mask with_extra_keys(const Mask& mask, const ScoreShape& shape, int64_t extra, at::Device device) {
  if (extra == 0 || !mask.defined()) return mask;
  const auto allowed = materialize(kMultiHeadAttention, mask, shape, /*query_dim=*/4, device);
  return dense(at::constant_pad_nd(allowed.expand({-1, -1, -1, shape.keys}), {0, extra}, true));
}

/// Adds a mask of torch.nn.MultiheadAttention, which broadcasts to the scores, to `masks`. A boolean mask
/// hides keys where it is true; a floating mask is added to the scores. The mask has no effect on the `extra`
/// keys.
void hide_or_add(torch::Tensor mask, int64_t extra, at::ScalarType query_dtype, Masks& masks) {
  if (extra > 0) mask = at::constant_pad_nd(mask, {0, extra}, 0);
  if (mask.scalar_type() == at::kBool) {
    masks.mask = masks.mask & dense(mask.logical_not());
  } else {
    masks.score_mod = masks.score_mod.then(bias(beside_query(mask, query_dtype)));
  }
}

}  // namespace

torch::Tensor beside_query(const torch::Tensor& tensor, at::ScalarType query_dtype) {
  return tensor.scalar_type() == at::kFloat ? tensor : tensor.to(query_dtype);
}

Masks::Masks(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params,
             const ScoreShape& shape, at::ScalarType query_dtype, at::Device device)
    : mask(mask_of_options(module.options, params) & params.mask),
      score_mod(score_mod_of_options(module, query_dtype, device)) {
  const int64_t extra = num_extra_keys(module.options);
  mask = with_extra_keys(mask, shape, extra, device);
  const auto& padding = params.key_padding_mask;
  if (padding.defined()) {
    hide_or_add(padding.reshape({shape.batch, 1, 1, shape.keys}), extra, query_dtype, *this);
  }
  const auto& attn_mask = params.attn_mask;
  if (!attn_mask.defined()) return;
  const bool is_shared = attn_mask.dim() == 2;
  hide_or_add(is_shared ? attn_mask : attn_mask.unflatten(0, {shape.batch, shape.heads}), extra, query_dtype,
              *this);
}

}  // namespace attend::nn
