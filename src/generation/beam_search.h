#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// Generates by beam search, which in each step keeps the params.num_beams continuations of a prompt with the
/// largest log probabilities.
Generation beam_search(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                       const at::Tensor& lengths);

}  // namespace attend::generation
