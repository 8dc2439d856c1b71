#pragma once

#include <ATen/core/Tensor.h>
#include <attend/mask.h>

#include "core/checks.h"

namespace attend::reference {

/// Which queries may attend to which keys, for the rows of `shape`: boolean, four dimensions that broadcast
/// to the scores. The mask is not the default mask, and was checked.
at::Tensor allowed(const Mask& mask, const ScoreShape& shape, int64_t query_dim, at::Device device);

}  // namespace attend::reference
