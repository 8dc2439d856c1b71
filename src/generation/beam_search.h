#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// Beam search: of all continuations of a prompt, keeps the params.num_beams with the largest log
/// probabilities.
Generation beam_search(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                       const at::Tensor& lengths);

}  // namespace attend::generation
