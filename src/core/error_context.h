#pragma once

#include <attend/error.h>
#include <c10/util/ArrayRef.h>

#include <utility>

namespace attend::checks {

/// The names of one argument: in a submodule, and in the module that contains the submodule.
struct ArgumentName {
  const char* inner;
  const char* outer;
};

/// A submodule, by its name in the module that contains it: "self_attn", or "layers.3" for an element of a
/// list.
struct Part {
  // NOLINTNEXTLINE(google-explicit-constructor)
  Part(const char* part_name, int64_t part_index = -1) : name(part_name), index(part_index) {}
  const char* name;
  int64_t index;
};

/// Throws the error as an error of `module`, raised in its submodule `part`. An argument that is not in
/// `names` keeps its name.
[[noreturn]] void rethrow_in(const char* module, const Part& part, c10::ArrayRef<ArgumentName> names,
                             const Error& error);

/// Returns call(), which calls a submodule of `module`. An `Error` that the submodule throws is rethrown as
/// an error of `module`: its path is extended by `part`, and its argument gets the name that `module` uses.
template <typename Call>
decltype(auto) in_module(const char* module, const Part& part, c10::ArrayRef<ArgumentName> names,
                         Call&& call) {
  try {
    return std::forward<Call>(call)();
  } catch (const Error& error) {
    rethrow_in(module, part, names, error);
  }
}

/// Returns call(), which calls other functions on behalf of `function`. An `Error` of these functions is
/// rethrown as an error of `function`.
template <typename Call>
decltype(auto) in_function(const char* function, c10::ArrayRef<ArgumentName> names, Call&& call) {
  return in_module(function, "", names, std::forward<Call>(call));
}

}  // namespace attend::checks
