#include "models/config_file.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <system_error>

#include "core/checks.h"

namespace attend::models {
namespace {

/// Returns a JSON number as a double; nullopt for other values.
std::optional<double> number_of(const json::Value& value) {
  if (const auto* number = std::get_if<uint64_t>(&value.content)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(&value.content)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<double>(&value.content)) return *number;
  return {};
}

/// Returns a JSON number as an integer; nullopt if it is not an integer of 64 bits. JSON does not distinguish
/// 2 and 2.0.
std::optional<int64_t> integer_of(const json::Value& value) {
  if (const auto* number = std::get_if<int64_t>(&value.content)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value.content)) {
    if (*number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return static_cast<int64_t>(*number);
    }
  }
  if (const auto* number = std::get_if<double>(&value.content)) {
    constexpr double kMax = 9007199254740992;  // 2^53: up to this value, every integer is a double
    if (std::abs(*number) <= kMax && *number == std::trunc(*number)) return static_cast<int64_t>(*number);
  }
  return {};
}

}  // namespace

bool has_file(const std::string& folder, const std::string& name) {
  return std::filesystem::exists(std::filesystem::path(folder) / name);
}

ConfigFile::ConfigFile(const char* function, const std::string& folder, const std::string& name)
    : function_(function), name_(name) {
  const auto path = folder + "/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) checks::fail(function, path.c_str(), "a readable file", std::generic_category().message(errno));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  try {
    root_ = json::parse(text);
  } catch (const json::ParseError& error) {
    checks::fail(function, path.c_str(), "a JSON object or array", error.what());
  }
  if (root_.object() == nullptr && root_.array() == nullptr) {
    checks::fail(function, path.c_str(), "a JSON object or array", root_.type_name());
  }
}

const json::Value* ConfigFile::find(std::string_view field) const {
  const auto name = std::string(field);
  if (root_.object() == nullptr) fail(name.c_str(), "a field of a JSON object", root_.type_name());
  const auto* const value = root_.find(field);
  return value == nullptr || std::holds_alternative<std::monostate>(value->content) ? nullptr : value;
}

bool ConfigFile::is_null(std::string_view field) const {
  return find(field) == nullptr && root_.find(field) != nullptr;
}

bool ConfigFile::boolean(const char* field, bool fallback) const {
  const auto* const value = find(field);
  if (value == nullptr) return fallback;
  if (value->boolean() == nullptr) fail(field, "a boolean", value->type_name());
  return *value->boolean();
}

int64_t ConfigFile::integer(const char* field, int64_t fallback) const {
  const auto* const value = find(field);
  if (value == nullptr) return fallback;
  const auto integer = integer_of(*value);
  if (!integer) fail(field, "an integer", value->type_name());
  return *integer;
}

double ConfigFile::number(const char* field, double fallback) const {
  const auto* const value = find(field);
  if (value == nullptr) return fallback;
  const auto number = number_of(*value);
  if (!number) fail(field, "a number", value->type_name());
  return *number;
}

std::string ConfigFile::string(const char* field, const std::string& fallback) const {
  const auto* const value = find(field);
  if (value == nullptr) return fallback;
  if (value->string() == nullptr) fail(field, "a string", value->type_name());
  return *value->string();
}

void ConfigFile::require(const char* field, std::initializer_list<std::string> expected) const {
  const auto value = string(field, *expected.begin());
  if (std::ranges::find(expected, value) == expected.end()) fail(field, c10::Join(" or ", expected), value);
}

void ConfigFile::require_flag(const char* field, bool expected) const {
  const auto name = [](bool value) { return value ? "true" : "false"; };
  if (boolean(field, expected) != expected) fail(field, name(expected), name(!expected));
}

void ConfigFile::fail(const char* field, const std::string& expected, const std::string& got) const {
  checks::fail(function_, c10::str(name_, ": ", field).c_str(), expected, got);
}

}  // namespace attend::models
