#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// JSON (RFC 8259) for the parts of the library that read or write it. nlohmann-json parses the text. Only
/// core/json.cpp includes it, since its header takes seconds to compile.
namespace attend::json {

/// The exception for text that is not JSON. `what()` states the position and the reason.
struct ParseError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The exception for text that is not UTF-8.
struct Utf8Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Receives the values of a JSON text in order. A function may throw an exception, which ends the parse.
class Handler {
 public:
  Handler() = default;
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  virtual ~Handler() = default;

  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  virtual void unsigned_integer(uint64_t value) = 0;
  virtual void negative_integer(int64_t value) = 0;
  /// A number with a fraction or an exponent, or an integer beyond 64 bits.
  virtual void floating_point(double value) = 0;
  virtual void string(std::string& value) = 0;
  virtual void begin_object() = 0;
  virtual void key(std::string& name) = 0;
  virtual void end_object() = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
};

/// Parses a text and calls `handler` for each value, without storing values. Throws `ParseError`. A zero byte
/// counts as the end of the text.
void parse(std::string_view text, Handler& handler);

struct Value;
using Array = std::vector<Value>;
/// The members of an object. If a key occurs more than once, it has the last value.
using Object = std::map<std::string, Value, std::less<>>;

/// A JSON value in memory.
struct Value {
  using Content = std::variant<std::monostate, bool, uint64_t, int64_t, double, std::string, Array, Object>;
  Content content = {};  ///< std::monostate is null

  const bool* boolean() const { return std::get_if<bool>(&content); }
  const std::string* string() const { return std::get_if<std::string>(&content); }
  const Array* array() const { return std::get_if<Array>(&content); }
  const Object* object() const { return std::get_if<Object>(&content); }
  /// Returns the value of a key; nullptr if this value is not an object or lacks the key.
  const Value* find(std::string_view key) const;
  /// Returns "null", "a boolean", "a number", "a string", "an array" or "an object".
  const char* type_name() const;
};

/// Returns the value of a JSON text. Throws `ParseError`, also for more than 256 levels of nesting.
Value parse(std::string_view text);

/// Returns the text as a JSON string, in quotes. Throws `Utf8Error`.
std::string quoted(std::string_view text);

/// Returns the text as a JSON string of ASCII characters, in quotes. Invalid UTF-8 becomes U+FFFD.
std::string quoted_ascii(std::string_view text);

/// Returns the text with U+FFFD in place of invalid UTF-8.
std::string valid_utf8(std::string_view text);

}  // namespace attend::json
