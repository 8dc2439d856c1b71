#pragma once

#include <attend/export.h>
#include <c10/util/Exception.h>

#include <string>

namespace attend {

/// The exception that every function and module of this library throws on wrong input, before anything is
/// changed. It is a c10::Error, which Python receives as a RuntimeError, and holds the parts of its message:
///
///     attend::FUNCTION: ARGUMENT: expected EXPECTED, got GOT
///     attend::MODULE: PATH: ARGUMENT: expected EXPECTED, got GOT
///
/// The second form reports an error in a submodule of the called module: "attend::nn::Transformer:
/// encoder.layers.0.self_attn: src_mask: expected ..., got ...".
class ATTEND_API Error : public c10::Error {
 public:
  /// An error of `function` itself; its path is empty.
  Error(std::string function, std::string argument, std::string expected, std::string got);
  /// A copy, with the same backtrace.
  Error(const Error&) = default;
  /// Copies the other error.
  Error& operator=(const Error&) = default;
  ~Error() override;

  /// The function or module that was called, without "attend::", such as "nn::Transformer".
  const std::string& function() const { return function_; }
  /// The name of the submodule that failed, as in `named_modules`; empty if the called function or module
  /// itself failed.
  const std::string& path() const { return path_; }
  /// The wrong argument or option, under the name that it has in `function`.
  const std::string& argument() const { return argument_; }
  /// A description of the valid values.
  const std::string& expected() const { return expected_; }
  /// A description of the given value.
  const std::string& got() const { return got_; }

  /// Returns the error as a caller reports it: raised in `function`, whose submodule `path` failed, about
  /// what `function` calls `argument`. `path` is prepended to the path of this error.
  Error raised_in(std::string function, const std::string& path, std::string argument) const;

 private:
  Error(const Error& inner, std::string function, std::string path, std::string argument);

  std::string function_, path_, argument_, expected_, got_;
};

}  // namespace attend
