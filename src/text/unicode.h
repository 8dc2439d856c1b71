#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Code points of UTF-8 text, and the classes of characters that tokenizers distinguish. ICU knows the
/// classes.
namespace attend::text {

constexpr char32_t kReplacementCharacter = 0xFFFD;

/// Returns the code point at `at`, and advances `at` to the next. Each maximal sequence of bytes that is not
/// UTF-8 is U+FFFD.
char32_t next_code_point(std::string_view text, size_t& at);

/// Returns the last code point of a text that is not empty.
char32_t last_code_point(std::string_view text);

/// Whether a text is UTF-8.
bool is_utf8(std::string_view text);

/// Returns the text with U+FFFD in place of each maximal sequence of bytes that is not UTF-8.
std::string with_replacements(std::string_view text);

void append(std::string& text, char32_t c);
std::string utf8(char32_t c);

/// Returns the number of bytes of a code point in UTF-8.
size_t size_in_utf8(char32_t c);

/// Returns the number of code points of UTF-8 text.
size_t num_code_points(std::string_view text);

/// Calls `use` for each code point, with its beginning and end.
template <typename F>
void for_each_code_point(std::string_view text, const F& use) {
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(text, at);
    use(c, begin, at);
  }
}

/// Whether a code point has the property White_Space.
bool is_space(char32_t c);
/// Whether a code point is in the categories Cc, Cf or Co.
bool is_control(char32_t c);
/// Whether a code point is a punctuation mark (category P) or an ASCII symbol.
bool is_punctuation(char32_t c);
/// Whether a code point is in a block of CJK ideographs; the blocks are those of BERT's tokenizer.
bool is_chinese(char32_t c);
/// Whether a code point is a number: the categories Nd, Nl and No.
bool is_numeric(char32_t c);
/// Whether a code point is a mark: the categories Mn, Mc and Me, or Mn alone.
bool is_mark(char32_t c);
bool is_nonspacing_mark(char32_t c);
/// Whether a code point is in the class \w of Rust's regular expressions: letters, marks, digits, connectors
/// and the joiners.
bool is_word_character(char32_t c);

/// Returns the lower case of a code point, which may consist of several.
std::u32string lower_case(char32_t c);

/// Returns a text of less than 2 GiB in lower case, as Python's `str.lower` does.
std::string lower_case(std::string_view text);

}  // namespace attend::text
