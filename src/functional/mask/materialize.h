#pragma once

#include <attend/mask.h>

#include "core/score_shape.h"

namespace attend {

/// Returns the mask, which must not be the default mask, as a boolean tensor of four dimensions that
/// broadcasts to the scores: true = may attend. Fails with an error of `function` if the mask does not fit a
/// call of this shape.
at::Tensor materialize(const char* function, const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                       at::Device device);

}  // namespace attend
