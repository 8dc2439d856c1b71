#include "models/basic_tokenizer.h"

#include <c10/util/Exception.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace attend::models {
namespace {

constexpr UChar32 kReplacementCharacter = 0xFFFD;

bool is_space(UChar32 c) { return c == '\t' || c == '\n' || c == '\r' || u_isUWhiteSpace(c) != 0; }

/// Whether a code point is in Cc, Cf or Co, apart from tab, line feed and carriage return, which BERT counts
/// as white space.
bool is_control(UChar32 c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  constexpr uint32_t kOther = U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK;
  return (U_GET_GC_MASK(c) & kOther) != 0;
}

bool is_punctuation(UChar32 c) {
  const bool is_ascii_symbol =
      (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  return is_ascii_symbol || (U_GET_GC_MASK(c) & U_GC_P_MASK) != 0;
}

/// Whether a code point is in a block of CJK ideographs; the blocks are those in the tokenizers of
/// `transformers`.
bool is_chinese(UChar32 c) {
  struct Range {
    UChar32 first, last;
  };
  constexpr std::array<Range, 8> kRanges = {{{0x4E00, 0x9FFF},
                                             {0x3400, 0x4DBF},
                                             {0x20000, 0x2A6DF},
                                             {0x2A700, 0x2B73F},
                                             {0x2B740, 0x2B81F},
                                             {0x2B920, 0x2CEAF},
                                             {0xF900, 0xFAFF},
                                             {0x2F800, 0x2FA1F}}};
  return std::ranges::any_of(kRanges,
                             [c](const Range& range) { return c >= range.first && c <= range.last; });
}

const UNormalizer2& decomposer() {
  UErrorCode error = U_ZERO_ERROR;
  const auto* instance = unorm2_getNFDInstance(&error);
  TORCH_INTERNAL_ASSERT(U_SUCCESS(error), u_errorName(error));
  return *instance;
}

void append(std::string& text, UChar32 c) {
  std::array<char, U8_MAX_LENGTH> bytes{};
  size_t length = 0;
  U8_APPEND_UNSAFE(bytes.data(), length, c);
  text.append(bytes.data(), length);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"  // for a macro of ICU
/// Returns the code point at `at`, and advances `at` to the next; negative if the bytes are not UTF-8.
UChar32 next_code_point(std::string_view text, size_t& at) {
  UChar32 c = 0;
  U8_NEXT(text.data(), at, text.size(), c);
  return c;
}
#pragma GCC diagnostic pop

/// Calls `use` for each code point, with its beginning and end. The code point is negative for bytes that are
/// not UTF-8.
template <typename F>
void for_each_code_point(std::string_view text, const F& use) {
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const UChar32 c = next_code_point(text, at);
    use(c, begin, at);
  }
}

/// Builds a normalized text from code points.
class Normalizer {
 public:
  Normalizer(const Normalization& normalization, size_t size) : normalization_(normalization) {
    text_.reserve(size + size / 4);
  }

  void add(UChar32 c) {
    if (c <= 0 || c == kReplacementCharacter || is_control(c)) return;
    if (is_space(c)) return add_ordered(' ');
    const bool is_alone = normalization_.isolate_chinese && is_chinese(c);
    if (is_alone) add_ordered(' ');
    if (normalization_.strip_accents) {
      add_decomposed(c);
    } else {
      append_lower(c);
    }
    if (is_alone) add_ordered(' ');
  }

  std::string take() {
    flush_marks();
    return std::move(text_);
  }

 private:
  void add_decomposed(UChar32 c) {
    constexpr UChar32 kFirstDecomposed = 0xC0;
    std::array<UChar, 32> decomposed{};  // the longest decomposition has 4 code units
    UErrorCode error = U_ZERO_ERROR;
    const int32_t length = c < kFirstDecomposed
                               ? -1
                               : unorm2_getDecomposition(&decomposer_, c, decomposed.data(),
                                                         static_cast<int32_t>(decomposed.size()), &error);
    if (U_FAILURE(error) || length < 0) return add_ordered(c);
    for (int32_t n = 0; n < length;) {
      UChar32 part = 0;
      U16_NEXT(decomposed.data(), n, length, part);
      add_ordered(part);
    }
  }

  /// Adds a code point of a decomposition. Accents are removed. Other marks between two base characters are
  /// sorted by their combining class, which is the canonical order.
  void add_ordered(UChar32 c) {
    const uint8_t combining_class = c < 0x80 ? 0 : u_getCombiningClass(c);
    if (combining_class == 0) flush_marks();
    if (c >= 0x80 && normalization_.strip_accents && u_charType(c) == U_NON_SPACING_MARK) return;
    if (combining_class == 0) return append_lower(c);
    marks_.emplace_back(combining_class, c);
  }

  void flush_marks() {
    if (marks_.empty()) return;
    std::ranges::stable_sort(marks_, {}, &std::pair<uint8_t, UChar32>::first);
    for (const auto& [combining_class, c] : marks_) append_lower(c);
    marks_.clear();
  }

  void append_lower(UChar32 c) {
    constexpr UChar32 kCapitalIWithDot = 0x130, kDotAbove = 0x307;
    if (!normalization_.lower_case) return append(text_, c);
    if (c == kCapitalIWithDot) {  // the only code point whose lower case has two code points
      append(text_, 'i');
      return append(text_, kDotAbove);
    }
    append(text_, u_tolower(c));
  }

  const Normalization normalization_;
  const UNormalizer2& decomposer_ = decomposer();
  std::string text_;
  std::vector<std::pair<uint8_t, UChar32>> marks_;  ///< the marks since the last base character
};

bool is_word_character(UChar32 c) {
  constexpr uint32_t kWord =
      U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;  // \w of the regular expressions of Rust
  return c >= 0 && (u_hasBinaryProperty(c, UCHAR_ALPHABETIC) != 0 || (U_GET_GC_MASK(c) & kWord) != 0 ||
                    u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) != 0);
}

}  // namespace

std::string normalize(std::string_view text, const Normalization& normalization) {
  Normalizer normalizer(normalization, text.size());
  for_each_code_point(text, [&](UChar32 c, size_t, size_t) { normalizer.add(c); });
  return normalizer.take();
}

std::vector<std::string_view> split_into_words(std::string_view normalized) {
  std::vector<std::string_view> words;
  size_t first = 0;  // the beginning of the current word
  const auto end_word = [&](size_t end) {
    if (end > first) words.push_back(normalized.substr(first, end - first));
  };
  for_each_code_point(normalized, [&](UChar32 c, size_t begin, size_t end) {
    const bool is_mark = is_punctuation(c);
    if (!is_mark && !is_space(c)) return;
    end_word(begin);
    first = is_mark ? begin : end;
    if (is_mark) end_word(end);
    first = end;
  });
  end_word(normalized.size());
  return words;
}

bool starts_with_word(std::string_view text) {
  size_t at = 0;
  return !text.empty() && is_word_character(next_code_point(text, at));
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  const auto last = text.substr(text.size() - std::min<size_t>(text.size(), U8_MAX_LENGTH));
  auto at = static_cast<int32_t>(last.size());
  UChar32 c = 0;
  U8_PREV(last.data(), 0, at, c);
  return is_word_character(c);
}

std::string lower_case(std::string_view text) {
  std::string lower;
  icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())})
      .toLower(icu::Locale::getRoot())
      .toUTF8String(lower);
  return lower;
}

size_t num_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return U8_IS_LEAD(byte) || U8_IS_SINGLE(byte); }));
}

}  // namespace attend::models
