#pragma once

#include <ATen/core/Tensor.h>

namespace attend::generation {

// Restriction of the tokens among which sampling chooses: each function sets the logits [B, V] of all other
// tokens to -inf.

/// Keeps the k most likely tokens; 0 means all.
at::Tensor keep_top_k(const at::Tensor& logits, int64_t k);

/// Keeps the smallest set of most likely tokens whose total probability is at least p.
at::Tensor keep_top_p(const at::Tensor& logits, double p);

/// Keeps the tokens that are at least p times as likely as the most likely one.
at::Tensor keep_min_p(const at::Tensor& logits, double p);

}  // namespace attend::generation
