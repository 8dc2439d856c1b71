#include "text/unicode_forms.h"

#include <c10/util/Exception.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>

#include <algorithm>
#include <array>

#include "text/unicode.h"

namespace attend::text {
namespace {

const UNormalizer2& normalizer_of(bool is_compatible) {
  UErrorCode error = U_ZERO_ERROR;
  const auto* const instance = is_compatible ? unorm2_getNFKDInstance(&error) : unorm2_getNFDInstance(&error);
  TORCH_INTERNAL_ASSERT(U_SUCCESS(error), u_errorName(error));
  return *instance;
}

const UNormalizer2& composer() {
  UErrorCode error = U_ZERO_ERROR;
  const auto* const instance = unorm2_getNFCInstance(&error);
  TORCH_INTERNAL_ASSERT(U_SUCCESS(error), u_errorName(error));
  return *instance;
}

int combining_class(char32_t c) { return c < 0x80 ? 0 : u_getCombiningClass(static_cast<UChar32>(c)); }

/// Collects the code points of a decomposed text. The marks between two base characters are sorted by their
/// combining class, which is the canonical order.
class Decomposer {
 public:
  explicit Decomposer(bool is_compatible) : normalizer_(normalizer_of(is_compatible)) {}

  void add(char32_t c) {
    constexpr char32_t kFirstDecomposed = 0xA0;
    std::array<UChar, 32> parts{};  // the longest decomposition has 18 code units
    UErrorCode error = U_ZERO_ERROR;
    const int32_t length = c < kFirstDecomposed
                               ? -1
                               : unorm2_getDecomposition(&normalizer_, static_cast<UChar32>(c), parts.data(),
                                                         static_cast<int32_t>(parts.size()), &error);
    if (U_FAILURE(error) || length < 0) return push(c, 0);
    for (int32_t n = 0; n < length;) {
      const bool is_first = n == 0;
      UChar32 part = 0;
      U16_NEXT(parts.data(), n, length, part);
      push(static_cast<char32_t>(part), is_first ? 0 : 1);
    }
  }

  std::vector<Change> take() {
    sort_marks();
    return std::move(changes_);
  }

 private:
  void push(char32_t c, int32_t change) {
    if (combining_class(c) == 0) {
      sort_marks();
      num_sorted_ = changes_.size() + 1;
    }
    changes_.push_back({c, change});
  }

  void sort_marks() {
    const auto first = changes_.begin() + static_cast<std::ptrdiff_t>(num_sorted_);
    const auto by_class = [](const Change& change) { return combining_class(change.c); };
    if (changes_.end() - first > 1) std::ranges::stable_sort(first, changes_.end(), {}, by_class);
  }

  const UNormalizer2& normalizer_;
  std::vector<Change> changes_;
  size_t num_sorted_ = 0;  ///< up to the last base character
};

/// Composes the code points of a decomposed text. A base character and a mark are composed unless a mark of
/// the same or a higher class stands between them.
std::vector<Change> composed(const std::vector<Change>& decomposed) {
  constexpr size_t kNone = SIZE_MAX;
  const auto& nfc = composer();
  std::vector<Change> changes;
  changes.reserve(decomposed.size());
  size_t base = kNone;  // the last base character
  int last_class = -1;  // the class of the last mark that was not composed with it; -1 if there is none
  for (const auto& [c, change] : decomposed) {
    const int own_class = combining_class(c);
    if (base != kNone && last_class < own_class) {
      const auto whole =
          unorm2_composePair(&nfc, static_cast<UChar32>(changes[base].c), static_cast<UChar32>(c));
      if (whole >= 0) {
        changes[base].c = static_cast<char32_t>(whole);
        changes[base].change += change - 1;
        continue;
      }
    }
    if (own_class == 0) {
      base = changes.size();
      last_class = -1;
    } else if (base != kNone) {
      last_class = own_class;
    }
    changes.push_back({c, change});
  }
  return changes;
}

}  // namespace

void to_unicode_form(AlignedText& text, UnicodeForm form) {
  const bool is_ascii = std::ranges::all_of(text.text, [](char byte) { return byte >= 0; });
  if (is_ascii) return;
  const bool is_compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  Decomposer decomposer(is_compatible);
  for_each_code_point(text.text, [&](char32_t c, size_t, size_t) { decomposer.add(c); });
  const bool is_composed = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  text.transform(is_composed ? composed(decomposer.take()) : decomposer.take());
}

}  // namespace attend::text
