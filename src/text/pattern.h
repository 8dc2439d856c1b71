#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/json_field.h"

namespace attend::text {

/// A range of bytes of a text.
struct ByteRange {
  size_t begin, end;
};

/// What is searched in texts: a string or a regular expression.
class Pattern {
 public:
  Pattern() = default;
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  virtual ~Pattern() = default;

  /// Returns the matches in a text in UTF-8, from left to right and without overlaps. Throws attend::Error if
  /// a regular expression takes more than a time or stack that is proportional to the text.
  virtual std::vector<ByteRange> find(std::string_view text) const = 0;
};

/// Makes a pattern that is a string, which is not empty.
std::shared_ptr<const Pattern> make_string_pattern(std::string string);

/// Makes a pattern that is a regular expression of ICU, whose errors state `where`. Returns null, and the
/// reason in `error`, if it is not one.
std::shared_ptr<const Pattern> make_regex(const std::string& expression, std::string where,
                                          std::string& error);

/// Reads {"String": ...} or {"Regex": ...}.
std::shared_ptr<const Pattern> read_pattern(const JsonField& field);

/// What becomes of the matches of a pattern at which a text is split.
enum class SplitBehavior {
  removed,               ///< they are removed
  isolated,              ///< each is a part
  contiguous,            ///< those that follow each other are one part
  merged_with_previous,  ///< each is joined to the part before it
  merged_with_next,      ///< each is joined to the part after it
};

/// Reads the name of a behaviour.
SplitBehavior read_split_behavior(const JsonField& field);

/// Returns the parts of a text of `size` bytes that is split at matches, which may be empty. If `invert` is
/// set, the text between the matches takes their role.
std::vector<ByteRange> split_at(const std::vector<ByteRange>& matches, size_t size, SplitBehavior behavior,
                                bool invert = false);

}  // namespace attend::text
