#include "checkpoint/safetensors_header.h"

#include <c10/util/StringUtil.h>

#include <limits>
#include <unordered_set>

#include "checkpoint/dtype_names.h"
#include "core/json.h"

namespace attend::checkpoint {
namespace {

constexpr const char* kMetadata = "__metadata__";

/// Reads a header from the events of the JSON parser. A value that the format does not allow is rejected as
/// soon as it occurs, so that nested or repeated values in a malicious header take no memory.
class HeaderReader final : public json::Handler {
 public:
  explicit HeaderReader(const Source& source) : source_(source) {}

  SafetensorsHeader take() { return std::move(header_); }

  void begin_object() override {
    switch (position_) {
      case Position::start:
        position_ = Position::header;
        return;
      case Position::header:
        if (key_ == kMetadata) {
          position_ = Position::metadata;
        } else {
          header_.entries.emplace_back().name = key_;
          seen_ = {};
          position_ = Position::entry;
        }
        return;
      default:
        reject("an object");
    }
  }

  void key(std::string& key) override {
    if (position_ == Position::header && !keys_.insert(key).second) reject_duplicate(key);
    if (position_ == Position::metadata && header_.metadata.contains(key)) reject_duplicate(key);
    if (position_ == Position::entry) begin_field(key);
    key_ = key;
  }

  void string(std::string& text) override {
    if (position_ == Position::metadata) {
      header_.metadata.emplace(key_, text);
    } else if (position_ == Position::entry && key_ == "dtype") {
      const auto dtype = dtype_named(&DtypeNames::safetensors, text);
      if (!dtype) source_.fail("a known dtype for " + printable(entry().name), printable(text));
      entry().dtype = *dtype;
    } else {
      reject("a string");
    }
  }

  void begin_array() override {
    if (position_ == Position::entry && key_ == "shape") {
      position_ = Position::shape;
    } else if (position_ == Position::entry && key_ == "data_offsets") {
      position_ = Position::offsets;
    } else {
      reject("an array");
    }
  }

  void unsigned_integer(uint64_t value) override {
    if (position_ == Position::shape) {
      if (value > std::numeric_limits<int64_t>::max()) reject("a size of " + std::to_string(value));
      entry().shape.push_back(static_cast<int64_t>(value));
    } else if (position_ == Position::offsets && num_offsets_ < 2) {
      (num_offsets_++ == 0 ? entry().begin : entry().end) = value;
    } else {
      reject("a number");
    }
  }

  void end_array() override {
    if (position_ == Position::offsets && num_offsets_ != 2) {
      reject(c10::str(num_offsets_, " data_offsets instead of 2"));
    }
    position_ = Position::entry;
  }

  void end_object() override {
    if (position_ == Position::entry) {
      for (const auto& [is_seen, field] : {std::pair(seen_.dtype, "dtype"), std::pair(seen_.shape, "shape"),
                                           std::pair(seen_.offsets, "data_offsets")}) {
        if (!is_seen) reject(std::string("an entry without ") + field);
      }
      if (entry().dtype == at::ScalarType::Float4_e2m1fn_x2) halve_last_size();
    }
    const bool is_nested = position_ == Position::entry || position_ == Position::metadata;
    position_ = is_nested ? Position::header : Position::end;
  }

  void null() override { reject("null"); }
  void boolean(bool) override { reject("a boolean"); }
  void negative_integer(int64_t) override { reject("a negative number"); }
  void floating_point(double) override { reject("a number that is not an integer of 64 bits"); }

 private:
  enum class Position { start, header, metadata, entry, shape, offsets, end };
  struct Fields {
    bool dtype = false, shape = false, offsets = false;
  };

  TensorEntry& entry() { return header_.entries.back(); }

  void begin_field(const std::string& field) {
    bool* const is_seen = field == "dtype"          ? &seen_.dtype
                          : field == "shape"        ? &seen_.shape
                          : field == "data_offsets" ? &seen_.offsets
                                                    : nullptr;
    if (is_seen == nullptr) reject("a field " + printable(field));
    if (*is_seen) reject_duplicate(field);
    *is_seen = true;
    if (is_seen == &seen_.offsets) num_offsets_ = 0;
  }

  /// One element of ATen's dtype stands for two elements of F4, which share a byte.
  void halve_last_size() {
    auto& shape = entry().shape;
    if (shape.empty() || shape.back() % 2 != 0) reject("F4 with an odd number of elements in a row");
    shape.back() /= 2;
  }

  [[noreturn]] void reject_duplicate(const std::string& key) const {
    source_.fail("unique keys in the header", "a duplicate " + printable(key));
  }

  [[noreturn]] void reject(const std::string& got) const {
    const auto expected =
        position_ == Position::start || position_ == Position::end ? std::string("one object as the header")
        : position_ == Position::metadata ? std::string("a string as each value of __metadata__")
        : position_ == Position::header
            ? "an object as the entry " + printable(key_)
            : "dtype, shape and data_offsets in the entry " + printable(header_.entries.back().name);
    source_.fail(expected, got);
  }

  const Source& source_;
  SafetensorsHeader header_;
  Position position_ = Position::start;
  std::string key_;  ///< the key that was parsed last
  std::unordered_set<std::string> keys_;
  Fields seen_;  ///< the fields of the current entry that were parsed
  int num_offsets_ = 0;
};

/// Returns the shape in the file, in which the two elements of F4 in a byte are counted separately.
std::vector<int64_t> shape_in_file(const TensorEntry& entry) {
  auto shape = entry.shape;
  if (entry.dtype == at::ScalarType::Float4_e2m1fn_x2) shape.back() *= 2;
  return shape;
}

std::string comma_separated(const std::vector<int64_t>& values) {
  std::string text;
  for (const auto value : values) {
    if (!text.empty()) text += ',';
    text += std::to_string(value);
  }
  return text;
}

std::string metadata_json(const std::map<std::string, std::string>& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) {
    if (!text.empty()) text += ',';
    text.append(json::quoted(key)).append(":").append(json::quoted(value));
  }
  return "{" + text + "}";
}

}  // namespace

SafetensorsHeader read_header(const Source& source, std::string_view text) {
  if (text.empty() || text.front() != '{') {
    source.fail("a header that begins with {", printable(text.substr(0, 1)));
  }
  // The parser would treat a zero byte as the end of the text.
  if (text.find('\0') != std::string_view::npos) source.fail("a JSON header", "a zero byte in it");
  HeaderReader reader(source);
  try {
    json::parse(text, reader);
  } catch (const json::ParseError& error) {
    source.fail("a JSON header", printable(error.what()));
  }
  return reader.take();
}

std::string write_header(const SafetensorsHeader& header) {
  std::string text = "{";
  if (!header.metadata.empty()) text += json::quoted(kMetadata) + ":" + metadata_json(header.metadata);
  for (const auto& entry : header.entries) {
    text += c10::str(text.size() > 1 ? "," : "", json::quoted(entry.name), R"(:{"dtype":")",
                     dtype_name(&DtypeNames::safetensors, entry.dtype), R"(","shape":[)",
                     comma_separated(shape_in_file(entry)), R"(],"data_offsets":[)",
                     std::to_string(entry.begin), ",", std::to_string(entry.end), "]}");
  }
  return text + "}";
}

}  // namespace attend::checkpoint
