#include "core/json.h"

#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

namespace attend::json {
namespace {

using Library = nlohmann::json;

/// Passes the events of nlohmann-json on to a handler.
class Events final : public nlohmann::json_sax<Library> {
 public:
  explicit Events(Handler& handler) : handler_(handler) {}

  bool null() override { return handler_.null(), true; }
  bool boolean(bool value) override { return handler_.boolean(value), true; }
  bool number_unsigned(uint64_t value) override { return handler_.unsigned_integer(value), true; }
  bool number_integer(int64_t value) override { return handler_.negative_integer(value), true; }
  bool number_float(double value, const std::string&) override {
    return handler_.floating_point(value), true;
  }
  bool string(std::string& value) override { return handler_.string(value), true; }
  bool start_object(size_t) override { return handler_.begin_object(), true; }
  bool key(std::string& name) override { return handler_.key(name), true; }
  bool end_object() override { return handler_.end_object(), true; }
  bool start_array(size_t) override { return handler_.begin_array(), true; }
  bool end_array() override { return handler_.end_array(), true; }
  bool binary(Library::binary_t&) override { return false; }  // JSON text has no binary values
  bool parse_error(size_t, const std::string&, const Library::exception& error) override {
    throw ParseError(error.what());
  }

 private:
  Handler& handler_;
};

/// Builds a value without recursion, so that deeply nested text cannot exhaust the stack.
class Builder final : public Handler {
 public:
  Value take() { return std::move(root_); }

  void null() override { add({}); }
  void boolean(bool value) override { add({value}); }
  void unsigned_integer(uint64_t value) override { add({value}); }
  void negative_integer(int64_t value) override { add({value}); }
  void floating_point(double value) override { add({value}); }
  void string(std::string& value) override { add({std::move(value)}); }
  void begin_object() override { open({Object()}); }
  void key(std::string& name) override { key_ = name; }
  void end_object() override { open_.pop_back(); }
  void begin_array() override { open({Array()}); }
  void end_array() override { open_.pop_back(); }

 private:
  Value& add(Value value) {
    if (open_.empty()) return root_ = std::move(value);
    if (auto* const array = std::get_if<Array>(&open_.back()->content)) {
      return array->emplace_back(std::move(value));
    }
    return std::get<Object>(open_.back()->content)[key_] = std::move(value);
  }

  void open(Value container) {
    constexpr size_t kMaxDepth = 256;
    if (open_.size() == kMaxDepth) throw ParseError("more than 256 levels of nesting");
    open_.push_back(&add(std::move(container)));
  }

  Value root_;
  std::vector<Value*> open_;  ///< the containers around the next value, the outermost first
  std::string key_;
};

std::string written(std::string_view text, bool ascii, Library::error_handler_t on_error) {
  try {
    return Library(text).dump(-1, ' ', ascii, on_error);
  } catch (const Library::exception& error) {
    throw Utf8Error(error.what());
  }
}

}  // namespace

void parse(std::string_view text, Handler& handler) {
  Events events(handler);
  Library::sax_parse(text.begin(), text.end(), &events);
}

Value parse(std::string_view text) {
  Builder builder;
  parse(text, builder);
  return builder.take();
}

const Value* Value::find(std::string_view key) const {
  const auto* const members = object();
  if (members == nullptr) return nullptr;
  const auto found = members->find(key);
  return found == members->end() ? nullptr : &found->second;
}

const char* Value::type_name() const {
  constexpr auto name = [](const auto& value) -> const char* {
    using T = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<T, std::monostate>) return "null";
    if constexpr (std::is_same_v<T, bool>) return "a boolean";
    if constexpr (std::is_same_v<T, std::string>) return "a string";
    if constexpr (std::is_same_v<T, Array>) return "an array";
    if constexpr (std::is_same_v<T, Object>) return "an object";
    return "a number";
  };
  return std::visit(name, content);
}

std::string quoted(std::string_view text) {
  return written(text, /*ascii=*/false, Library::error_handler_t::strict);
}

std::string quoted_ascii(std::string_view text) {
  return written(text, /*ascii=*/true, Library::error_handler_t::replace);
}

std::string valid_utf8(std::string_view text) {
  return Library::parse(written(text, /*ascii=*/false, Library::error_handler_t::replace)).get<std::string>();
}

}  // namespace attend::json
