#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// Calls model.logits, checks its result and returns the log probabilities of the next token, float64 [B, V]
/// on the CPU.
at::Tensor next_log_probabilities(const TokenModel& model, const at::Tensor& tokens,
                                  const at::Tensor& lengths);

}  // namespace attend::generation
