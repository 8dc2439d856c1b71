#pragma once

#include <attend/checkpoint.h>

#include <cstdint>

#include "checkpoint/pickle.h"

namespace attend::checkpoint {

/// The tensors in nested dictionaries and lists, each named by the path of keys and indices to it, joined by
/// dots. Fails if the nesting is deeper than 64 levels or cyclic, a key is neither text nor an integer, or
/// two tensors have one name.
///
/// `max_work` limits the number of visited values and the length of names: a pickle can refer to one
/// dictionary many times.
StateDict flatten(const Source& source, const Value& value, uint64_t max_work);

}  // namespace attend::checkpoint
