#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// The logarithm of the model's probability of each next token, float64 [B, V] on the CPU.
at::Tensor read(const TokenModel& model, const at::Tensor& tokens, const at::Tensor& counts = {});

/// One token at a time, the likeliest or drawn.
Generation token_by_token(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                          const at::Tensor& counts);

Generation beam_search(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                       const at::Tensor& counts);

}  // namespace attend::generation
