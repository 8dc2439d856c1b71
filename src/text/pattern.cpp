#include "text/pattern.h"

#include <algorithm>
#include <utility>

namespace attend::text {
namespace {

class StringPattern final : public Pattern {
 public:
  explicit StringPattern(std::string string) : string_(std::move(string)) {}

  std::vector<ByteRange> find(std::string_view text) const override {
    std::vector<ByteRange> matches;
    for (size_t at = text.find(string_); at != std::string_view::npos;
         at = text.find(string_, at + string_.size())) {
      matches.push_back({at, at + string_.size()});
    }
    return matches;
  }

 private:
  std::string string_;
};

/// A part of a text: a match, or the text between two matches.
struct Part {
  ByteRange range;
  bool is_match;
};

std::vector<Part> parts_of(const std::vector<ByteRange>& matches, size_t size, bool invert) {
  std::vector<Part> parts;
  size_t end = 0;
  for (const auto& match : matches) {
    if (match.begin > end) parts.push_back({{end, match.begin}, invert});
    parts.push_back({match, !invert});
    end = match.end;
  }
  if (size > end) parts.push_back({{end, size}, invert});
  return parts;
}

/// Joins each part to the one before it if `joins(is_match, is_match of the part before)`.
template <typename F>
std::vector<ByteRange> joined(const std::vector<Part>& parts, const F& joins) {
  std::vector<ByteRange> ranges;
  bool was_match = false;
  for (const auto& [range, is_match] : parts) {
    if (!ranges.empty() && joins(is_match, was_match)) {
      ranges.back().end = range.end;
    } else {
      ranges.push_back(range);
    }
    was_match = is_match;
  }
  return ranges;
}

/// Joins each match to the part after it. Of matches that follow each other, only the last is joined.
std::vector<ByteRange> joined_with_next(const std::vector<Part>& parts) {
  std::vector<ByteRange> ranges;
  bool is_next_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->is_match && !is_next_match && !ranges.empty()) {
      ranges.back().begin = part->range.begin;
    } else {
      ranges.push_back(part->range);
    }
    is_next_match = part->is_match;
  }
  std::ranges::reverse(ranges);
  return ranges;
}

}  // namespace

std::shared_ptr<const Pattern> make_string_pattern(std::string string) {
  return std::make_shared<StringPattern>(std::move(string));
}

std::shared_ptr<const Pattern> read_pattern(const JsonField& field) {
  if (const auto string = field.find("String")) {
    if (string->string().empty()) string->fail("a string that is not empty", "an empty string");
    return make_string_pattern(string->string());
  }
  const auto expression = field.find("Regex");
  if (!expression) field.fail("the field String or Regex", "neither");
  std::string error;
  auto pattern = make_regex(expression->string(), expression->path(), error);
  if (pattern == nullptr) expression->fail("a regular expression of ICU", error);
  return pattern;
}

SplitBehavior read_split_behavior(const JsonField& field) {
  const auto& name = field.string();
  // Python's `tokenizers` writes the names in camel case.
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  field.fail("Removed, Isolated, Contiguous, MergedWithPrevious or MergedWithNext", name);
}

std::vector<ByteRange> split_at(const std::vector<ByteRange>& matches, size_t size, SplitBehavior behavior,
                                bool invert) {
  const auto parts = parts_of(matches, size, invert);
  switch (behavior) {
    case SplitBehavior::contiguous:
      return joined(parts, [](bool is_match, bool was_match) { return is_match == was_match; });
    case SplitBehavior::merged_with_previous:
      return joined(parts, [](bool is_match, bool was_match) { return is_match && !was_match; });
    case SplitBehavior::merged_with_next:
      return joined_with_next(parts);
    case SplitBehavior::removed:
    case SplitBehavior::isolated:
      break;
  }
  std::vector<ByteRange> ranges;
  for (const auto& [range, is_match] : parts) {
    if (behavior == SplitBehavior::isolated || !is_match) ranges.push_back(range);
  }
  return ranges;
}

}  // namespace attend::text
