#include "reference/keys.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

namespace attend::reference {

at::Tensor repeat_heads(const at::Tensor& key_or_value, const c10::SymInt& heads) {
  const auto kv_heads = key_or_value.sym_size(1);
  if (kv_heads == heads) return key_or_value;
  return key_or_value.repeat_interleave_symint(heads / kv_heads, 1);
}

at::Tensor past_lengths(const at::Tensor& lengths, const c10::SymInt& keys, at::Device device) {
  const auto position = at::arange(keys, lengths.options()).view({1, 1, -1, 1});
  return (position >= lengths.view({-1, 1, 1, 1})).to(device);
}

}  // namespace attend::reference
