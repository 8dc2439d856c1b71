#include "text/json_field.h"

#include <c10/util/StringUtil.h>

#include <utility>

#include "core/checks.h"
#include "text/unicode.h"

namespace attend::text {

std::optional<int64_t> index_of(const json::Value& value, int64_t most) {
  const auto* const number = std::get_if<uint64_t>(&value.content);
  if (number == nullptr || *number > static_cast<uint64_t>(most)) return {};
  return static_cast<int64_t>(*number);
}

JsonField JsonField::member(const std::string& name, const json::Value& value) const {
  return {value, path_.ends_with(": ") ? path_ + name : path_ + "." + name};
}

JsonField JsonField::at(const std::string& name) const {
  const auto* const value = object().contains(name) ? value_.find(name) : nullptr;
  if (value == nullptr) fail(c10::str("the field ", name), "none");
  return member(name, *value);
}

std::optional<JsonField> JsonField::find(const std::string& name) const {
  const auto found = object().find(name);
  if (found == object().end() || std::holds_alternative<std::monostate>(found->second.content)) return {};
  return member(name, found->second);
}

std::vector<JsonField> JsonField::elements() const {
  std::vector<JsonField> fields;
  for (size_t n = 0; n < array().size(); ++n) {
    fields.emplace_back(array()[n], c10::str(path_, "[", n, "]"));
  }
  return fields;
}

const json::Array& JsonField::array() const {
  if (value_.array() == nullptr) fail("an array", value_.type_name());
  return *value_.array();
}

const json::Object& JsonField::object() const {
  if (value_.object() == nullptr) fail("an object", value_.type_name());
  return *value_.object();
}

const std::string& JsonField::string() const {
  if (value_.string() == nullptr) fail("a string", value_.type_name());
  return *value_.string();
}

bool JsonField::boolean() const {
  if (value_.boolean() == nullptr) fail("a boolean", value_.type_name());
  return *value_.boolean();
}

double JsonField::number() const {
  if (const auto* number = std::get_if<uint64_t>(&value_.content)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(&value_.content)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<double>(&value_.content)) return *number;
  fail("a number", value_.type_name());
}

int64_t JsonField::index(int64_t most) const {
  const auto number = index_of(value_, most);
  if (!number) fail(c10::str("an integer in 0 ... ", most), value_.type_name());
  return *number;
}

char32_t JsonField::code_point() const {
  size_t at = 0;
  if (string().empty()) fail("one character", "an empty string");
  const char32_t c = next_code_point(string(), at);
  if (at != string().size()) fail("one character", c10::str("\"", string(), "\""));
  return c;
}

bool JsonField::boolean_or(const std::string& name, bool otherwise) const {
  const auto field = find(name);
  return field ? field->boolean() : otherwise;
}

std::string JsonField::string_or(const std::string& name, const std::string& otherwise) const {
  const auto field = find(name);
  return field ? field->string() : otherwise;
}

const std::string& JsonField::type() const {
  const auto* const value = object().contains("type") ? value_.find("type") : nullptr;
  if (value == nullptr || value->string() == nullptr) fail("the string type", "none");
  return *value->string();
}

void JsonField::fail_type(const std::string& expected) const {
  member("type", value_).fail(expected, type());
}

void JsonField::fail(const std::string& expected, const std::string& got) const {
  const auto path = path_.ends_with(": ") ? path_.substr(0, path_.size() - 2) : path_;
  checks::fail("text::Tokenizer", path.c_str(), expected, got);
}

void JsonField::fail_in(const std::string& element, const std::string& expected,
                        const std::string& got) const {
  JsonField(value_, path_ + element).fail(expected, got);
}

}  // namespace attend::text
