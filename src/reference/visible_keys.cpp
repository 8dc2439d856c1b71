#include "reference/visible_keys.h"

#include <ATen/TensorOperators.h>

#include "core/dtypes.h"
#include "core/mask_node.h"
#include "reference/keys.h"

namespace attend::reference {

at::Tensor hide_past_lengths(const at::Tensor& key_or_value, const Mask& mask) {
  const auto lengths = key_lengths_of(mask);
  if (!lengths.defined()) return key_or_value;
  return key_or_value.masked_fill(past_lengths(lengths, key_or_value.sym_size(2), key_or_value.device()), 0);
}

at::Tensor wide_keys(const at::Tensor& key_or_value, const AttentionCall& call) {
  return widen(repeat_heads(hide_past_lengths(key_or_value, call.mask), call.query.sym_size(1)));
}

}  // namespace attend::reference
