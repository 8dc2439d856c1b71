#pragma once

// What the operators have in common. Their kernels take a stack, as the dispatcher hands one over, since a
// schema with a dozen arguments is better read by name in one place than repeated in every signature.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <string>
#include <vector>

#include "core/compute_type.h"

namespace attend::ops {

using torch::jit::Stack;

/// The tensor of a `Tensor?`: undefined for None.
inline at::Tensor tensor_or_undefined(const c10::IValue& value) {
  return value.isNone() ? at::Tensor() : value.toTensor();
}

/// None for an undefined tensor.
inline c10::IValue tensor_or_none(const at::Tensor& tensor) {
  return tensor.defined() ? c10::IValue(tensor) : c10::IValue();
}

/// Calls an operator of this library through the dispatcher, where a tracer sees it.
Stack call(const char* name, Stack arguments);

/// Whether a call is to go to an operator without an inside, since what traces it (torch.compile, fake
/// tensors, a dispatch mode) could not look into a kernel, or there is no data (meta tensors). Not so under a
/// functional transform or with a forward-mode tangent: those go through the plain ATen operations of the
/// reference.
bool is_traced(const std::vector<at::Tensor>& tensors);

/// Whether a tensor is under a functional transform (torch.func).
bool is_transformed(const std::vector<at::Tensor>& tensors);

/// Whether a gradient may be asked for.
bool is_differentiated(const std::vector<at::Tensor>& tensors);

/// Whether a size is a symbol, as under torch.compile with dynamic shapes.
bool has_symbolic_sizes(const std::vector<at::Tensor>& tensors);

/// Any operator of this library under autocast: query, key and value in autocast's dtype; the others in it or
/// float32.
void autocast(const c10::OperatorHandle& op, Stack* stack);

}  // namespace attend::ops
