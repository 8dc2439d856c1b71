#pragma once

#include <ATen/core/ivalue.h>

#include <utility>

namespace attend {

/// A value of any type as an object that an IValue can store, such as in the `saved_data` of an autograd
/// node.
template <typename T>
struct Held : torch::CustomClassHolder {
  explicit Held(T value_) : value(std::move(value_)) {}
  T value;
};

/// An IValue that stores `value`.
template <typename T>
c10::IValue capsule_of(T value) {
  return c10::IValue::make_capsule(c10::make_intrusive<Held<T>>(std::move(value)));
}

/// The value in an IValue made by `capsule_of` with the same T; lives as long as the IValue.
template <typename T>
const T& held_in(const c10::IValue& capsule) {
  return c10::static_intrusive_pointer_cast<Held<T>>(capsule.toCapsule())->value;
}

}  // namespace attend
