#pragma once

#include <attend/mask.h>

#include <concepts>
#include <utility>

namespace attend::nn {

/// A `Mask` as an argument of a module that also takes the boolean tensors of torch.nn. In those, true means
/// must not attend; in a `Mask`, true means may attend. Therefore a tensor is not converted to this type
/// implicitly: write `attend::dense(allowed)`.
class ModuleMask {
 public:
  /// Every query may attend to every key.
  ModuleMask() = default;
  /// This mask.
  template <std::same_as<Mask> Given>
  ModuleMask(Given mask) : mask_(std::move(mask)) {}  // NOLINT(google-explicit-constructor)

  /// The mask.
  operator const Mask&() const { return mask_; }  // NOLINT(google-explicit-constructor)
  /// False for the default mask, which hides nothing.
  bool defined() const { return mask_.defined(); }

 private:
  Mask mask_;
};

}  // namespace attend::nn
