#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attend::text {

/// A range of bytes of the text that a user gave.
struct SourceRange {
  uint32_t begin = 0, end = 0;
};

/// A code point of a rewritten text, and what became of the text that it replaces: 0 if it replaces one code
/// point, 1 if it is inserted, and -n if it replaces one code point and the n that follow are removed.
struct Change {
  char32_t c;
  int32_t change;
};

/// A text in UTF-8 with the part of the source that each of its bytes stands for. It is rewritten in steps,
/// and each step finds its origins by the rules of Python's `tokenizers` (NormalizedString), so that the
/// offsets of tokens are the same.
struct AlignedText {
  std::string text;
  std::vector<SourceRange> origins;  ///< one per byte of `text`
  uint32_t first = 0;                ///< where the source of this text begins

  /// Makes the text from UTF-8, of which each code point stands for itself. The source begins at `first`.
  static AlignedText of(std::string_view source, uint32_t first = 0);

  /// Appends bytes that stand for one part of the source.
  void append(std::string_view bytes, SourceRange origin);
  /// Appends a part of another text.
  void append(const AlignedText& other, size_t begin, size_t end);

  /// Returns a part of the text as a text of its own.
  AlignedText slice(size_t begin, size_t end) const;

  /// Rewrites the text. `num_removed` is the number of code points that are removed before the first change.
  void transform(const std::vector<Change>& changes, size_t num_removed = 0);

  /// Removes all code points for which `keep` is false.
  template <typename F>
  void filter(const F& keep);

  /// Inserts UTF-8 before the first code point, unless the text is empty. It stands for the same part of the
  /// source as this code point.
  void prepend(std::string_view inserted);

  /// Returns the range of the source of a range of the text that is not empty.
  SourceRange origin(size_t begin, size_t end) const { return {origins[begin].begin, origins[end - 1].end}; }
};

/// Returns the code points of a text, each as a change that replaces itself.
std::vector<Change> unchanged(std::string_view text);

template <typename F>
void AlignedText::filter(const F& keep) {
  std::vector<Change> changes;
  size_t num_removed = 0;  // before the first change
  bool is_whole = true;
  for (const auto& change : unchanged(text)) {
    if (keep(change.c)) {
      changes.push_back(change);
      continue;
    }
    is_whole = false;
    if (changes.empty()) {
      ++num_removed;
    } else {
      --changes.back().change;
    }
  }
  if (!is_whole) transform(changes, num_removed);
}

}  // namespace attend::text
