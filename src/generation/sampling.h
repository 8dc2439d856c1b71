#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// Generates one token after the other, the most likely one or a sampled one.
Generation sample(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                  const at::Tensor& lengths);

}  // namespace attend::generation
