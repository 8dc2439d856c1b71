#pragma once

#include <cstdint>
#include <string_view>

#include "checkpoint/pickle.h"

namespace attend::checkpoint {

/// Interprets the globals that `torch.load(weights_only=True)` allows: containers and plain values. Derived
/// classes load storages and rebuild tensors.
class StateDictUnpickler : public Unpickler {
 public:
  StateDictUnpickler(const Source& source, std::string_view pickle)
      : Unpickler(source, pickle), max_work_(pickle.size()) {}

 protected:
  /// Returns the result of a function that rebuilds a tensor.
  virtual Value rebuild(const Global& function, const Sequence& arguments) = 0;

  Global find_global(std::string_view module, std::string_view name) override;
  Value call(const Global& function, const Sequence& arguments) override;

  /// Returns an argument of a call. Fails if the argument is missing or has another type.
  template <typename T>
  T argument(const char* function, const Sequence& arguments, size_t index) const {
    const auto* const found =
        index < arguments.items.size() ? std::get_if<T>(&arguments.items[index]) : nullptr;
    if (found == nullptr) fail_arguments(function);
    return *found;
  }
  [[noreturn]] void fail_arguments(const char* function) const;

  /// Limits the memory of the objects that calls create: by the memo, a short pickle could call a function
  /// with the same arguments any number of times. `bytes` is at most the size of such a call in a pickle that
  /// spells out the arguments, so that these pickles stay below the limit.
  void charge(uint64_t bytes);

 private:
  Value ordered_dict(const Sequence& arguments);
  Value as_kind(Sequence::Kind kind, const Global& function, const Sequence& arguments);

  uint64_t max_work_, work_ = 0;
};

}  // namespace attend::checkpoint
