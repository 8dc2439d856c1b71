#pragma once

#include <attend/position.h>
#include <attend/positional_encoding.h>

#include "core/checks.h"

namespace attend {

/// Fails where a position of the call does not fit into a `Position`.
void check_positions(const char* function, const char* argument, const ScoreShape& shape);

/// Fails, in the name of `function`, where the buckets cannot be formed.
void check_buckets(const char* function, const RelativeBuckets& buckets);

}  // namespace attend
