#include "text/unicode.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>

namespace attend::text {
namespace {

UChar32 icu_of(char32_t c) { return static_cast<UChar32>(c); }

bool is_in(char32_t c, uint32_t categories) { return (U_GET_GC_MASK(icu_of(c)) & categories) != 0; }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"  // for macros of ICU
/// Returns the code point at `at`, and advances `at`; negative if the bytes are not UTF-8.
UChar32 next_or_invalid(std::string_view text, size_t& at) {
  UChar32 c = 0;
  U8_NEXT(text.data(), at, text.size(), c);
  return c;
}
#pragma GCC diagnostic pop

}  // namespace

char32_t next_code_point(std::string_view text, size_t& at) {
  const UChar32 c = next_or_invalid(text, at);
  return c < 0 ? kReplacementCharacter : static_cast<char32_t>(c);
}

char32_t last_code_point(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < U8_MAX_LENGTH && U8_IS_TRAIL(text[begin])) --begin;
  return next_code_point(text, begin);
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (next_or_invalid(text, at) < 0) return false;
  }
  return true;
}

std::string with_replacements(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (size_t at = 0; at < text.size();) append(valid, next_code_point(text, at));
  return valid;
}

void append(std::string& text, char32_t c) {
  std::array<char, U8_MAX_LENGTH> bytes{};
  size_t length = 0;
  U8_APPEND_UNSAFE(bytes.data(), length, c);
  text.append(bytes.data(), length);
}

std::string utf8(char32_t c) {
  std::string text;
  append(text, c);
  return text;
}

size_t size_in_utf8(char32_t c) { return static_cast<size_t>(U8_LENGTH(c)); }

size_t num_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return U8_IS_LEAD(byte) || U8_IS_SINGLE(byte); }));
}

bool is_space(char32_t c) { return u_isUWhiteSpace(icu_of(c)) != 0; }

bool is_control(char32_t c) { return is_in(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK); }

bool is_punctuation(char32_t c) {
  const bool is_ascii_symbol =
      (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  return is_ascii_symbol || is_in(c, U_GC_P_MASK);
}

bool is_chinese(char32_t c) {
  struct Range {
    char32_t first, last;
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

bool is_numeric(char32_t c) { return is_in(c, U_GC_N_MASK); }

bool is_mark(char32_t c) { return is_in(c, U_GC_M_MASK); }

bool is_nonspacing_mark(char32_t c) { return is_in(c, U_GC_MN_MASK); }

bool is_word_character(char32_t c) {
  return u_hasBinaryProperty(icu_of(c), UCHAR_ALPHABETIC) != 0 ||
         is_in(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(icu_of(c), UCHAR_JOIN_CONTROL) != 0;
}

std::u32string lower_case(char32_t c) {
  constexpr char32_t kCapitalIWithDot = 0x130, kDotAbove = 0x307;
  if (c == kCapitalIWithDot) return {'i', kDotAbove};  // the only code point whose lower case has two
  return {static_cast<char32_t>(u_tolower(icu_of(c)))};
}

std::string lower_case(std::string_view text) {
  std::string lower;
  icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())})
      .toLower(icu::Locale::getRoot())
      .toUTF8String(lower);
  return lower;
}

}  // namespace attend::text
