// Regular expressions through ICU, with limits: a hostile expression can take a time that is exponential in
// the length of a text, and any amount of memory.
#include <unicode/uregex.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "core/checks.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

struct CloseRegex {
  void operator()(URegularExpression* regex) const { uregex_close(regex); }
};
using RegexHandle = std::unique_ptr<URegularExpression, CloseRegex>;

/// Appends a text in UTF-16.
void append_utf16(std::string_view text, std::u16string& utf16) {
  utf16.reserve(utf16.size() + text.size());
  for_each_code_point(text, [&](char32_t c, size_t, size_t) {
    if (c < 0x10000) return utf16.push_back(static_cast<char16_t>(c));
    utf16.push_back(static_cast<char16_t>(0xD7C0 + (c >> 10U)));
    utf16.push_back(static_cast<char16_t>(0xDC00 + (c & 0x3FFU)));
  });
}

/// Converts ascending indices of UTF-16 to those of UTF-8.
class IndexConverter {
 public:
  explicit IndexConverter(std::string_view text) : text_(text) {}

  size_t to_utf8(size_t index) {
    while (utf16_ < index && utf8_ < text_.size()) {
      utf16_ += next_code_point(text_, utf8_) < 0x10000 ? 1 : 2;
    }
    return utf8_;
  }

 private:
  std::string_view text_;
  size_t utf16_ = 0, utf8_ = 0;
};

/// The time that a search may take, which is proportional to the length of the text.
class Deadline {
 public:
  explicit Deadline(size_t size)
      : end_(Clock::now() + std::chrono::milliseconds(500) + std::chrono::microseconds(20) * size) {}

  /// Called by ICU after each attempt to match.
  static UBool goes_on(const void* context, int64_t /*index*/) {
    const auto& deadline = *static_cast<const Deadline*>(context);
    constexpr unsigned kInterval = 16;  // reading the clock takes longer than most attempts
    return ++deadline.num_calls_ % kInterval != 0 || Clock::now() < deadline.end_ ? 1 : 0;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point end_;
  mutable unsigned num_calls_ = 0;
};

class Regex final : public Pattern {
 public:
  Regex(RegexHandle regex, std::string where) : regex_(std::move(regex)), where_(std::move(where)) {}

  std::vector<ByteRange> find(std::string_view text) const override {
    std::u16string utf16;
    append_utf16(text, utf16);
    UErrorCode error = U_ZERO_ERROR;
    const RegexHandle search(uregex_clone(regex_.get(), &error));  // a search changes its regex
    const Deadline deadline(text.size());
    // ICU counts steps of 10,000 saved states. Expressions of tokenizers save a few states per character.
    uregex_setTimeLimit(search.get(), static_cast<int32_t>(2 + text.size() / 100), &error);
    // A repetition saves a state of up to 64 bytes for each character.
    constexpr size_t kLeastStack = 8'000'000, kMostStack = std::numeric_limits<int32_t>::max();
    const auto stack = std::min(kLeastStack + 64 * text.size(), kMostStack);
    uregex_setStackLimit(search.get(), static_cast<int32_t>(stack), &error);
    uregex_setFindProgressCallback(search.get(), Deadline::goes_on, &deadline, &error);
    uregex_setText(search.get(), utf16.data(), static_cast<int32_t>(utf16.size()), &error);
    IndexConverter indices(text);
    std::vector<ByteRange> matches;
    while (uregex_findNext(search.get(), &error) != 0 && U_SUCCESS(error)) {
      const auto begin = indices.to_utf8(static_cast<size_t>(uregex_start(search.get(), 0, &error)));
      const auto end = indices.to_utf8(static_cast<size_t>(uregex_end(search.get(), 0, &error)));
      const bool is_at_previous = !matches.empty() && matches.back().end == begin;
      if (begin < end || !is_at_previous) matches.push_back({begin, end});
    }
    if (U_SUCCESS(error)) return matches;
    checks::fail("text::Tokenizer", where_.c_str(),
                 "a regular expression whose search takes a time and memory proportional to the text",
                 u_errorName(error));
  }

 private:
  RegexHandle regex_;
  std::string where_;
};

}  // namespace

std::shared_ptr<const Pattern> make_regex(const std::string& expression, std::string where,
                                          std::string& error) {
  constexpr size_t kMaxSize = 16'384;  // in bytes
  if (expression.size() > kMaxSize) {
    error = "one of " + std::to_string(expression.size()) + " bytes";
    return nullptr;
  }
  std::u16string utf16;
  append_utf16(expression, utf16);
  UParseError position{};
  UErrorCode status = U_ZERO_ERROR;
  RegexHandle regex(uregex_open(utf16.data(), static_cast<int32_t>(utf16.size()), 0, &position, &status));
  if (U_SUCCESS(status)) return std::make_shared<Regex>(std::move(regex), std::move(where));
  error = std::string(u_errorName(status)) + " at its character " + std::to_string(position.offset);
  return nullptr;
}

}  // namespace attend::text
