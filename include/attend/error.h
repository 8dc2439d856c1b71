#pragma once

#include <attend/export.h>
#include <c10/util/Exception.h>

#include <string>

namespace attend {

/// What every function and module of this library throws on wrong input, before it has changed anything. It
/// is a c10::Error, and so a RuntimeError in Python, that also holds the parts of its message:
///
///     attend::FUNCTION: ARGUMENT: expected EXPECTED, got GOT
///     attend::MODULE: PATH: ARGUMENT: expected EXPECTED, got GOT
///
/// The second form is that of an error in a module which the called module contains:
/// "attend::nn::Transformer: encoder.layers.0.self_attn: src_mask: expected ..., got ...".
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
  /// The name within that module of the module that failed, as in `named_modules`; empty where they are the
  /// same.
  const std::string& path() const { return path_; }
  /// The wrong argument or option, under the name that it has in `function`.
  const std::string& argument() const { return argument_; }
  /// The values that are valid.
  const std::string& expected() const { return expected_; }
  /// The value that was given.
  const std::string& got() const { return got_; }

  /// The same error as a caller's: raised in `function`, whose part `path` failed, on what `function` calls
  /// `argument`. The path is extended to the left.
  Error raised_in(std::string function, const std::string& path, std::string argument) const;

 private:
  Error(const Error& inner, std::string function, std::string path, std::string argument);

  std::string function_, path_, argument_, expected_, got_;
};

}  // namespace attend
