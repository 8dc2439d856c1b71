#pragma once

#include <attend/mask.h>

#include "core/score_shape.h"

namespace attend {

/// The mask as a boolean tensor of four dimensions that broadcasts to the scores, true = may attend. Fails,
/// in the name of `function`, where the mask, which is not the default mask, does not fit a call of this
/// shape.
at::Tensor materialize(const char* function, const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                       at::Device device);

}  // namespace attend
