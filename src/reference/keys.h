#pragma once

#include "core/attention_call.h"
#include "core/compute_type.h"

namespace attend::reference {

/// A key or value with each head repeated for the queries that read it: [B, H, Lk, D].
at::Tensor repeat_heads(const at::Tensor& key_or_value, int64_t heads);

/// A key or value with zeros past the key lengths: 0 * NaN would be NaN.
at::Tensor hide_past_lengths(const at::Tensor& key_or_value, const Mask& mask);

/// A key or value of the call as it meets the queries: all of that.
at::Tensor wide_keys(const at::Tensor& key_or_value, const AttentionCall& call);

}  // namespace attend::reference
