#include "command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string_view>

#include "parse_integer.h"

namespace {

/// Returns a validator that accepts decimal digits only and rejects overflow, unlike CLI11's own.
CLI::Validator integer_in(int64_t low, int64_t high) {
  const auto check = [low, high](std::string& text) {
    const auto value = parse_integer(text, low, high);
    if (!value) return fmt::format("expected an integer from {} to {}, got {:?}", low, high, text);
    text = std::to_string(*value);
    return std::string();
  };
  return {check, fmt::format("{}..{}", low, high)};
}

/// Returns the message of an exception without the stack trace that c10::Error appends.
std::string_view message_of(const std::exception& error) {
  const std::string_view what = error.what();
  return what.substr(0, what.find("\nException raised from"));
}

}  // namespace

CommandLine::CommandLine(const std::string& program, const std::string& description)
    : program_(program), app_(std::make_unique<CLI::App>(description, program)) {}

CommandLine::~CommandLine() = default;

void CommandLine::add(const std::string& name, int64_t& value, int64_t low, int64_t high,
                      const std::string& help) {
  app_->add_option(name, value, help)->transform(integer_in(low, high))->capture_default_str();
}

void CommandLine::add(const std::string& name, std::optional<int64_t>& value, int64_t low, int64_t high,
                      const std::string& help) {
  app_->add_option(name, value, help)->transform(integer_in(low, high));
}

void CommandLine::add(const std::string& name, std::string& value, const std::string& help,
                      const Check& check) {
  auto* const option = app_->add_option(name, value, help);
  if (check) option->check(check);
}

void CommandLine::add_folder(const std::string& name, std::string& value, const std::string& help) {
  app_->add_option(name, value, help)->required()->check(CLI::ExistingDirectory);
}

int CommandLine::run(int argc, char** argv, const std::function<void()>& run) {
  const auto fail = [this](std::string_view message, int exit_code) {
    fmt::print(stderr, "{}: {}\n", program_, message);
    return exit_code;
  };
  try {
    app_->parse(argc, argv);
    run();
    return 0;
  } catch (const CLI::Success& help) {
    return app_->exit(help);
  } catch (const CLI::ParseError& error) {
    return fail(message_of(error), 2);
  } catch (const InputError& error) {
    return fail(message_of(error), 2);
  } catch (const std::exception& error) {
    return fail(message_of(error), 1);
  }
}
