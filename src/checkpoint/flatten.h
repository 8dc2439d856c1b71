#pragma once

#include <attend/checkpoint.h>

#include "checkpoint/pickle.h"

namespace attend::checkpoint {

/// The tensors in nested containers, each named by the path of keys and indices to it, joined by dots. Fails
/// if two tensors have one name, or a container of tensors contains itself.
///
/// A pickle can refer to one container many times. The names and tensors are limited to 1 MiB and 128 times
/// the size of the source, so that time and memory are linear in it.
StateDict flatten(const Source& source, const Value& value);

}  // namespace attend::checkpoint
