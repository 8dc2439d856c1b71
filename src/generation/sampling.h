#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// Generates token by token; each is the most likely token or a sampled one.
Generation sample(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                  const at::Tensor& lengths);

}  // namespace attend::generation
