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

/// The exception for an invalid argument, or for an invalid file that an argument names.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The command line of a program. Only command_line.cpp includes CLI11, which takes seconds to compile.
class CommandLine {
 public:
  /// Returns a message that states what is wrong with an argument; empty if the argument is valid.
  using Check = std::function<std::string(const std::string&)>;

  CommandLine(const std::string& program, const std::string& description);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  ~CommandLine();

  /// Adds an option "--name", or a positional argument "name", that is an integer in [low, high].
  void add(const std::string& name, int64_t& value, int64_t low, int64_t high, const std::string& help);
  void add(const std::string& name, std::optional<int64_t>& value, int64_t low, int64_t high,
           const std::string& help);
  /// Adds an option or a positional argument that is text.
  void add(const std::string& name, std::string& value, const std::string& help, const Check& check = {});
  /// Adds a required option or positional argument that is the path of a folder.
  void add_folder(const std::string& name, std::string& value, const std::string& help);

  /// Parses the arguments and calls `run`. Returns the exit code of the program: 0; 2 for wrong arguments and
  /// InputError; 1 for every other exception. Errors are printed as "program: message".
  int run(int argc, char** argv, const std::function<void()>& run);

 private:
  std::string program_;
  std::unique_ptr<CLI::App> app_;
};
