#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// Returns a key or value with zeros at positions at or past the key lengths of the mask: a weight of 0 times
/// NaN would be NaN.
at::Tensor hide_past_lengths(const at::Tensor& key_or_value, const Mask& mask);

/// Returns a key or value of the call in compute type, with heads repeated for the query heads and zeros past
/// the key lengths.
at::Tensor wide_keys(const at::Tensor& key_or_value, const AttentionCall& call);

}  // namespace attend::reference
