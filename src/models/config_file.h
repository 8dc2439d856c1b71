#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "core/json.h"

namespace attend::models {

/// Whether `folder`/`name` exists.
bool has_file(const std::string& folder, const std::string& name);

/// A JSON file that configures a model. Errors state the public function that reads the file, the file and
/// the field.
class ConfigFile {
 public:
  /// Reads `folder`/`name`. Fails unless it is a JSON object or array.
  ConfigFile(const char* function, const std::string& folder, const std::string& name);

  const json::Value& root() const { return root_; }

  /// Returns the value of a field of the object; nullptr if the field is missing or null. Fails if the file
  /// is an array.
  const json::Value* find(std::string_view field) const;

  /// Returns the value of a field of the object; `fallback` if the field is missing or null. Fails if the
  /// value has another type, or the file is an array.
  bool boolean(const char* field, bool fallback) const;
  int64_t integer(const char* field, int64_t fallback) const;
  double number(const char* field, double fallback) const;
  std::string string(const char* field, const std::string& fallback) const;

  /// Fails unless the field is absent, null or one of the values.
  void require(const char* field, std::initializer_list<std::string> expected) const;
  void require_flag(const char* field, bool expected) const;

  /// Whether the field is present and null.
  bool is_null(std::string_view field) const;

  /// Throws c10::Error: "attend::function: name: field: expected ..., got ...".
  [[noreturn]] void fail(const char* field, const std::string& expected, const std::string& got) const;

 private:
  const char* function_;
  std::string name_;
  json::Value root_;
};

}  // namespace attend::models
