#pragma once

#include <ATen/core/Tensor.h>
#include <attend/mask.h>

#include "core/checks.h"

namespace attend::reference {

/// Evaluates a mask for the rows of `shape`: a boolean tensor of four dimensions that broadcasts to the
/// scores, true where the query may attend to the key. `mask` must be defined, and already checked against
/// the call.
at::Tensor allowed(const Mask& mask, const SymScoreShape& shape, int64_t query_dim, at::Device device);

}  // namespace attend::reference
