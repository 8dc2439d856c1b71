#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// A key or value with zeros at or past the key lengths of the mask, since 0 * NaN would be NaN.
at::Tensor hide_past_lengths(const at::Tensor& key_or_value, const Mask& mask);

/// A key or value of the call with repeated heads, zeros past the key lengths, and compute type.
at::Tensor wide_keys(const at::Tensor& key_or_value, const AttentionCall& call);

}  // namespace attend::reference
