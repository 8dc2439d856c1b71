#pragma once

// Helpers of all operators: typed calls through the dispatcher, autocast, and constants that autograd saves.

#include <ATen/core/List.h>
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

/// Whether the private operators have kernels for the tensor: on the CPU, and on the meta device, which has
/// shapes only.
bool has_private_operators(const at::Tensor& tensor);

/// Converts the tensors of a call, query, key and value first, as autocast does, if it is enabled for the
/// query's device: those three, and each other tensor unless it is float32. Undefined tensors are skipped.
void autocast(c10::ArrayRef<at::Tensor*> tensors);

/// Returns values that are no tensors as a list that autograd saves. Compiled autograd treats each of them as
/// a constant of the graph.
template <class... Values>
c10::IValue constants_of(const Values&... values) {
  c10::impl::GenericList list(c10::AnyType::get());
  (list.push_back(c10::IValue(values)), ...);
  return list;
}

}  // namespace attend::ops
