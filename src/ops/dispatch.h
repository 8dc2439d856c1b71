#pragma once

// What all operators share: typed calls through the dispatcher, and whether a call is traced.

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace attend::ops {

/// The value of a `Tensor?`: none for an undefined tensor.
inline std::optional<at::Tensor> optional_of(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

/// A contiguous, uninitialised tensor of the same sizes, dtype and device; sizes may be symbols.
at::Tensor empty_contiguous(const at::Tensor& tensor);

/// An operator, to be called through the dispatcher, where tracers see the call. Throws if `Function` does
/// not match its schema.
template <class Function>
c10::TypedOperatorHandle<Function> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Function>();
}

/// Whether a call must go to a private, opaque operator: a tracer (torch.compile, fake tensors, a dispatch
/// mode) can't look into a kernel, and meta tensors have no data. False under a functional transform and with
/// a forward-mode tangent: those go through the ATen operations of the reference.
bool is_traced(at::TensorList tensors);

}  // namespace attend::ops
