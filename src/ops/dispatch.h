#pragma once

// Helpers of all operators: typed calls through the dispatcher, and the check whether a call is traced.

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace attend::ops {

/// Returns the value of a `Tensor?` parameter: nullopt for an undefined tensor.
inline std::optional<at::Tensor> optional_of(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

/// Returns a contiguous, uninitialised tensor of the same sizes, dtype and device. Sizes may be symbolic.
at::Tensor empty_contiguous(const at::Tensor& tensor);

/// Returns a handle to call an operator through the dispatcher, so that tracers see the call. Throws if
/// `Function` does not match the schema of the operator.
template <class Function>
c10::TypedOperatorHandle<Function> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Function>();
}

/// Whether a call must go to a private, opaque operator: for a tracer (torch.compile, fake tensors, a
/// dispatch mode), which can't look into a kernel, and for meta tensors, which have no data. False under a
/// functional transform and with a forward-mode tangent: such calls are computed by the ATen operations of
/// the reference.
bool is_traced(at::TensorList tensors);

}  // namespace attend::ops
