#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace CLI {
class App;
}

/// An argument, or a file that an argument names, is not as described.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The command line of a program. Only command_line.cpp includes CLI11, which takes seconds to compile.
class CommandLine {
 public:
  /// Returns what is wrong with an argument; empty if nothing is.
  using Check = std::function<std::string(const std::string&)>;

  CommandLine(const std::string& program, const std::string& description);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  ~CommandLine();

  /// An option "--name", or a positional argument "name", that is an integer in [low, high].
  void add(const std::string& name, int64_t& value, int64_t low, int64_t high, const std::string& help);
  void add(const std::string& name, std::optional<int64_t>& value, int64_t low, int64_t high,
           const std::string& help);
  /// One that is text.
  void add(const std::string& name, std::string& value, const std::string& help, const Check& check = {});
  /// One that is the path of a folder, and required.
  void add_folder(const std::string& name, std::string& value, const std::string& help);

  /// Parses the arguments and calls `run`. Returns the exit code of the program: 0; 2 for wrong arguments and
  /// InputError; 1 for every other exception. Errors are printed as "program: message".
  int run(int argc, char** argv, const std::function<void()>& run);

 private:
  std::string program_;
  std::unique_ptr<CLI::App> app_;
};
