#pragma once

#include <attend/position.h>
#include <attend/positional_encoding.h>

#include "core/checks.h"

namespace attend {

/// Fails with an error of `function` if a position of the call does not fit into a `Position`.
void check_positions(const char* function, const char* argument, const ScoreShape& shape);

/// Fails with an error of `function` if the parameters of the buckets are out of range.
void check_buckets(const char* function, const RelativeBuckets& buckets);

}  // namespace attend
