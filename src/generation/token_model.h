#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// The prediction of a model for the next token: float64 [B, V] on the CPU.
struct NextToken {
  at::Tensor logits, log_probabilities;
};

/// Calls model.logits and checks its result.
NextToken next_token(const TokenModel& model, const at::Tensor& tokens, const at::Tensor& lengths);

}  // namespace attend::generation
