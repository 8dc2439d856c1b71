#include "reference/keys.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

#include "core/mask_node.h"

namespace attend::reference {

at::Tensor repeat_heads(const at::Tensor& key_or_value, int64_t heads) {
  if (key_or_value.size(1) == heads) return key_or_value;
  return key_or_value.repeat_interleave(heads / key_or_value.size(1), 1);
}

at::Tensor hide_past_lengths(const at::Tensor& key_or_value, const Mask& mask) {
  const auto lengths = key_lengths_of(mask);
  if (!lengths.defined()) return key_or_value;
  const auto position = at::arange(key_or_value.size(2), lengths.options()).view({1, 1, -1, 1});
  return key_or_value.masked_fill((position >= lengths.view({-1, 1, 1, 1})).to(key_or_value.device()), 0);
}

at::Tensor wide_keys(const at::Tensor& key_or_value, const AttentionCall& call) {
  return widen(repeat_heads(hide_past_lengths(key_or_value, call.mask), call.query.size(1)));
}

}  // namespace attend::reference
