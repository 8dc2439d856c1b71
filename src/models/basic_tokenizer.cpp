#include "models/basic_tokenizer.h"

#include <c10/util/Exception.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>

namespace attend::models {
namespace {

constexpr UChar32 kReplacementCharacter = 0xFFFD;

bool is_space(UChar32 c) { return c == '\t' || c == '\n' || c == '\r' || u_isUWhiteSpace(c) != 0; }

/// Whether a code point is in the categories Cc, Cf or Co, and is not white space.
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

/// Builds words from code points.
class WordBuilder {
 public:
  /// Adds the lower-case decomposition of a code point, without accents.
  void add(UChar32 c) {
    if (c == 0 || c == kReplacementCharacter || is_control(c)) return;
    const bool is_word = is_chinese(c);
    if (is_word) end();
    std::array<UChar, 32> decomposed{};  // the longest decomposition has 4 code units
    UErrorCode error = U_ZERO_ERROR;
    const int32_t length = unorm2_getDecomposition(&decomposer_, c, decomposed.data(),
                                                   static_cast<int32_t>(decomposed.size()), &error);
    if (U_FAILURE(error) || length < 0) {
      add_decomposed(c);
    } else {
      for (int32_t n = 0; n < length;) {
        UChar32 part = 0;
        U16_NEXT(decomposed.data(), n, length, part);
        add_decomposed(part);
      }
    }
    if (is_word) end();
  }

  std::vector<std::string> take() {
    end();
    return std::move(words_);
  }

 private:
  void add_decomposed(UChar32 c) {
    if (u_charType(c) == U_NON_SPACING_MARK) return;
    c = u_tolower(c);
    if (is_space(c)) {
      end();
    } else if (is_punctuation(c)) {
      end();
      append(c);
      end();
    } else {
      append(c);
    }
  }

  void append(UChar32 c) {
    std::array<char, U8_MAX_LENGTH> bytes{};
    size_t length = 0;
    U8_APPEND_UNSAFE(bytes.data(), length, c);
    word_.append(bytes.data(), length);
  }

  void end() {
    if (!word_.empty()) words_.push_back(std::move(word_));
    word_.clear();
  }

  const UNormalizer2& decomposer_ = decomposer();
  std::vector<std::string> words_;
  std::string word_;
};

}  // namespace

std::vector<std::string> basic_tokenize(std::string_view text) {
  WordBuilder words;
  const auto decoded = icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())});
  for (int32_t n = 0; n < decoded.length(); n = decoded.moveIndex32(n, 1)) words.add(decoded.char32At(n));
  return words.take();
}

size_t num_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return U8_IS_LEAD(byte) || U8_IS_SINGLE(byte); }));
}

}  // namespace attend::models
