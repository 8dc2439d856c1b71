#include "checkpoint/safetensors_header.h"

#include <c10/util/StringUtil.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "checkpoint/dtype_names.h"

namespace attend::checkpoint {
namespace {

constexpr const char* kMetadata = "__metadata__";

/// Takes the parser's events one by one: what is out of place is refused where it stands, so that neither
/// depth nor length of a hostile header is ever built up.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const Source& source) : source_(source) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t) override {
    switch (where_) {
      case Where::file:
        return go(Where::names);
      case Where::names:
        if (key_ == kMetadata) return go(Where::metadata);
        header_.entries.emplace_back().name = key_;
        fields_ = {};
        return go(Where::entry);
      default:
        unexpected("an object");
    }
  }

  bool key(std::string& key) override {
    if (where_ == Where::names && !names_.insert(key).second) twice(key);
    if (where_ == Where::metadata && header_.metadata.contains(key)) twice(key);
    if (where_ == Where::entry) begin_field(key);
    key_ = key;
    return true;
  }

  bool string(std::string& text) override {
    if (where_ == Where::metadata) {
      header_.metadata.emplace(key_, text);
    } else if (where_ == Where::entry && key_ == "dtype") {
      const auto dtype = dtype_of(&DtypeNames::safetensors, text);
      if (!dtype) source_.fail("a known dtype for " + shown(entry().name), shown(text));
      entry().dtype = *dtype;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_array(size_t) override {
    if (where_ == Where::entry && key_ == "shape") return go(Where::shape);
    if (where_ == Where::entry && key_ == "data_offsets") return go(Where::offsets);
    unexpected("an array");
  }

  bool number_unsigned(uint64_t number) override {
    if (where_ == Where::shape) {
      if (number > std::numeric_limits<int64_t>::max()) unexpected(std::to_string(number));
      entry().shape.push_back(static_cast<int64_t>(number));
    } else if (where_ == Where::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? entry().begin : entry().end) = number;
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool end_array() override {
    if (where_ == Where::offsets && offsets_ != 2) unexpected(c10::str(offsets_, " of two offsets"));
    return go(Where::entry);
  }

  bool end_object() override {
    if (where_ != Where::entry) return go(where_ == Where::metadata ? Where::names : Where::end);
    if (!fields_.dtype || !fields_.shape || !fields_.offsets) unexpected("an entry that lacks some of them");
    return go(Where::names);
  }

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a truth value"); }
  bool number_integer(int64_t) override { unexpected("a negative number"); }
  bool number_float(double, const std::string&) override {
    unexpected("a number that is not whole, or too large");
  }
  bool binary(nlohmann::json::binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    source_.fail("a header in JSON", shown(error.what()));
  }

 private:
  enum class Where { file, names, metadata, entry, shape, offsets, end };
  struct Fields {
    bool dtype = false, shape = false, offsets = false;
  };

  bool go(Where where) {
    where_ = where;
    return true;
  }

  TensorEntry& entry() { return header_.entries.back(); }

  void begin_field(const std::string& field) {
    bool* const seen = field == "dtype"          ? &fields_.dtype
                       : field == "shape"        ? &fields_.shape
                       : field == "data_offsets" ? &fields_.offsets
                                                 : nullptr;
    if (seen == nullptr) unexpected("a field " + shown(field));
    if (*seen) twice(field);
    *seen = true;
    if (seen == &fields_.offsets) offsets_ = 0;
  }

  [[noreturn]] void twice(const std::string& key) const {
    source_.fail("each name once in the header", shown(key) + " twice");
  }

  [[noreturn]] void unexpected(const std::string& got) const {
    const auto expected =
        where_ == Where::file || where_ == Where::end ? std::string("one object as the header")
        : where_ == Where::metadata                   ? std::string("text as each value of __metadata__")
        : where_ == Where::names
            ? "an object as the entry " + shown(key_)
            : "dtype, shape and data_offsets in the entry " + shown(header_.entries.back().name);
    source_.fail(expected, got);
  }

  const Source& source_;
  SafetensorsHeader header_;
  Where where_ = Where::file;
  std::string key_;
  std::unordered_set<std::string> names_;
  Fields fields_;
  int offsets_ = 0;
};

std::string joined(const std::vector<int64_t>& numbers) {
  std::string text;
  for (const auto number : numbers) {
    if (!text.empty()) text += ',';
    text += std::to_string(number);
  }
  return text;
}

}  // namespace

SafetensorsHeader read_header(const Source& source, std::string_view text) {
  if (text.empty() || text.front() != '{')
    source.fail("a header that begins with {", shown(text.substr(0, 1)));
  // The parser takes a zero for the end of its input.
  if (text.find('\0') != std::string_view::npos) source.fail("a header in JSON", "a zero byte in it");
  HeaderReader reader(source);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.take();
}

std::string write_header(const SafetensorsHeader& header) {
  std::string text = "{";
  if (!header.metadata.empty()) {
    text += nlohmann::json(kMetadata).dump() + ":" + nlohmann::json(header.metadata).dump();
  }
  for (const auto& entry : header.entries) {
    text +=
        c10::str(text.size() > 1 ? "," : "", nlohmann::json(entry.name).dump(), R"(:{"dtype":")",
                 name_of(&DtypeNames::safetensors, entry.dtype), R"(","shape":[)", joined(entry.shape),
                 R"(],"data_offsets":[)", std::to_string(entry.begin), ",", std::to_string(entry.end), "]}");
  }
  return text + "}";
}

}  // namespace attend::checkpoint
