#include "reference/keys.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

namespace attend::reference {

at::Tensor repeat_heads(const at::Tensor& key_or_value, int64_t heads) {
  if (key_or_value.size(1) == heads) return key_or_value;
  return key_or_value.repeat_interleave(heads / key_or_value.size(1), 1);
}

at::Tensor past_lengths(const at::Tensor& lengths, int64_t keys, at::Device device) {
  const auto position = at::arange(keys, lengths.options()).view({1, 1, -1, 1});
  return (position >= lengths.view({-1, 1, 1, 1})).to(device);
}

}  // namespace attend::reference
