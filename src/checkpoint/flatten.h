#pragma once

#include <attend/checkpoint.h>

#include "checkpoint/pickle.h"

namespace attend::checkpoint {

/// Returns the tensors in nested containers, each named by the path of keys and indices to the tensor, joined
/// by dots. Fails if two tensors have the same name, or a container of tensors contains itself.
///
/// A pickle can refer to the same container many times. The memory of names and tensors is limited to 1 MiB
/// plus 128 times the size of the source, so that time and memory are linear in this size.
StateDict flatten(const Source& source, const Value& value);

}  // namespace attend::checkpoint
