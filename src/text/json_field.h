#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace attend::text {

/// A value in a JSON file, with the file and the path to the value, which errors state.
class JsonField {
 public:
  /// `value` must outlive the field. `path` is "file: " at first.
  JsonField(const json::Value& value, std::string path) : value_(value), path_(std::move(path)) {}

  const json::Value& value() const { return value_; }
  const std::string& path() const { return path_; }

  /// Returns a member of an object. Fails if it is missing.
  JsonField at(const std::string& name) const;
  /// Returns a member of an object; nullopt if it is missing or null.
  std::optional<JsonField> find(const std::string& name) const;
  /// Returns the elements of an array.
  std::vector<JsonField> elements() const;

  const json::Array& array() const;
  const json::Object& object() const;
  const std::string& string() const;
  bool boolean() const;
  double number() const;
  /// Returns an integer from 0 to `most`.
  int64_t index(int64_t most) const;
  /// Returns a string that is one code point.
  char32_t code_point() const;

  /// The value of a member, or the default if it is missing or null.
  bool boolean_or(const std::string& name, bool otherwise) const;
  std::string string_or(const std::string& name, const std::string& otherwise) const;

  /// Returns the string `type` of an object. Fails if it has none.
  const std::string& type() const;

  /// Fails with the message for a type that is not supported.
  [[noreturn]] void fail_type(const std::string& expected) const;
  /// Throws attend::Error: "attend::text::Tokenizer: file: path: expected ..., got ...".
  [[noreturn]] void fail(const std::string& expected, const std::string& got) const;
  /// Fails for an element of this array or a member of this object.
  [[noreturn]] void fail_in(const std::string& element, const std::string& expected,
                            const std::string& got) const;

 private:
  JsonField member(const std::string& name, const json::Value& value) const;

  const json::Value& value_;
  std::string path_;
};

/// The largest id that a token may have, of 32 bits as in Python's `tokenizers`.
constexpr int64_t kMaxTokenId = 4294967295;

/// Returns a JSON number as an integer from 0 to `most`; nullopt for other values.
std::optional<int64_t> index_of(const json::Value& value, int64_t most);

}  // namespace attend::text
