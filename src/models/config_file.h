#pragma once

#include <cstdint>
#include <string>

#include "core/json.h"

namespace attend::models {

/// A JSON file that configures a model. Errors name the public function that reads it, the file and the
/// field.
class ConfigFile {
 public:
  /// Reads `folder`/`name`. Fails unless it is a JSON object or array.
  ConfigFile(const char* function, const std::string& folder, const std::string& name);

  const json::Value& root() const { return root_; }

  /// The value of a field of the object; `fallback` where there is none. Fails if it has another type, or the
  /// file is an array.
  bool boolean(const char* field, bool fallback) const;
  int64_t integer(const char* field, int64_t fallback) const;
  double number(const char* field, double fallback) const;
  std::string string(const char* field, const std::string& fallback) const;

  /// Fails unless the field is absent or has the value `expected`.
  void require(const char* field, const std::string& expected) const;

  /// Throws c10::Error: "attend::function: name: field: expected ..., got ...".
  [[noreturn]] void fail(const char* field, const std::string& expected, const std::string& got) const;

 private:
  const json::Value* find(const char* field) const;

  const char* function_;
  std::string name_;
  json::Value root_;
};

}  // namespace attend::models
