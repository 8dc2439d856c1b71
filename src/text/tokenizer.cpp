#include <attend/text/tokenizer.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <limits>

#include "core/checks.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

using checks::fail;

constexpr auto kTokenizer = "text::Tokenizer";

/// A text in UTF-8, which refers to the text that was given if this is UTF-8.
class ValidText {
 public:
  explicit ValidText(std::string_view given) : text_(given) {
    constexpr size_t kMaxBytes = std::numeric_limits<int32_t>::max();
    // A byte that is not UTF-8 becomes three.
    if (given.size() > kMaxBytes / 3 && (given.size() > kMaxBytes || !is_utf8(given))) {
      fail(kTokenizer, "text", c10::str("at most ", kMaxBytes, " bytes of UTF-8"), c10::str(given.size()));
    }
    if (is_utf8(given)) return;
    for_each_code_point(given, [&](char32_t c, size_t begin, size_t) {
      append(repaired_, c);
      positions_.resize(repaired_.size(), static_cast<uint32_t>(begin));
    });
    positions_.push_back(static_cast<uint32_t>(given.size()));
    text_ = repaired_;
  }
  ValidText(const ValidText&) = delete;
  ValidText& operator=(const ValidText&) = delete;

  std::string_view text() const { return text_; }

  /// Returns the range of the text that was given.
  Span given(const SourceRange& range) const {
    if (positions_.empty()) return {range.begin, range.end};
    return {positions_[range.begin], positions_[range.end]};
  }

 private:
  std::string repaired_;
  std::vector<uint32_t> positions_;  ///< the position of each byte of `repaired_` in the text that was given
  std::string_view text_;
};

void truncate(TextTokens& text, size_t length, Side side) {
  auto& tokens = text.tokens;
  if (tokens.size() <= length) return;
  if (side == Side::left) {
    tokens.erase(tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(length));
  } else {
    tokens.resize(length);
  }
}

/// Returns the lengths of two texts that have at most `most` tokens together. The longer one is truncated to
/// the length of the shorter one, and then both are.
std::pair<size_t, size_t> longest_first(size_t first, size_t second, size_t most) {
  if (first > second) {
    const auto [longer, shorter] = longest_first(second, first, most);
    return {shorter, longer};
  }
  second = first > most ? first : std::max(first, most - first);
  return first + second > most ? std::pair(most / 2, most / 2 + most % 2) : std::pair(first, second);
}

void truncate(std::vector<TextTokens>& texts, const Truncation& truncation, size_t most) {
  const size_t first = texts.front().tokens.size();
  const size_t second = texts.size() > 1 ? texts[1].tokens.size() : 0;
  if (first + second <= most) return;
  if (truncation.strategy == TruncationStrategy::longest_first) {
    const auto [left, right] =
        texts.size() > 1 ? longest_first(first, second, most) : std::pair(most, size_t{0});
    truncate(texts.front(), left, truncation.side);
    if (texts.size() > 1) truncate(texts[1], right, truncation.side);
    return;
  }
  const bool is_first = truncation.strategy == TruncationStrategy::only_first;
  if (!is_first && texts.size() < 2) fail(kTokenizer, "truncation", "two texts for only_second", "one");
  auto& text = is_first ? texts.front() : texts[1];
  const size_t removed = first + second - most;
  if (most > 0 && text.tokens.size() <= removed) {
    fail(kTokenizer, "truncation", c10::str("a text of more than ", removed, " tokens to truncate"),
         c10::str(text.tokens.size()));
  }
  truncate(text, most == 0 ? 0 : text.tokens.size() - removed, truncation.side);
}

template <typename T>
void pad_with(std::vector<T>& values, size_t count, const T& value, Side side) {
  values.insert(side == Side::left ? values.begin() : values.end(), count, value);
}

}  // namespace

Encoding Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  auto encoding = encode_texts({text}, add_special_tokens);
  if (padding_) pad(encoding, padding_->length.value_or(static_cast<int64_t>(encoding.ids.size())));
  return encoding;
}

Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                bool add_special_tokens) const {
  auto encoding = encode_texts({first, second}, add_special_tokens);
  if (padding_) pad(encoding, padding_->length.value_or(static_cast<int64_t>(encoding.ids.size())));
  return encoding;
}

std::vector<Encoding> Tokenizer::encode_batch(const std::vector<std::string>& texts,
                                              bool add_special_tokens) const {
  std::vector<Encoding> encodings;
  encodings.reserve(texts.size());
  size_t longest = 0;
  for (const auto& text : texts) {
    encodings.push_back(encode_texts({text}, add_special_tokens));
    longest = std::max(longest, encodings.back().ids.size());
  }
  if (!padding_) return encodings;
  for (auto& encoding : encodings) pad(encoding, padding_->length.value_or(static_cast<int64_t>(longest)));
  return encodings;
}

Encoding Tokenizer::encode_texts(const std::vector<std::string_view>& texts, bool add_special_tokens) const {
  const auto& post_processor = parts_->post_processor;
  const size_t num_added =
      add_special_tokens && post_processor ? post_processor->num_added(texts.size() > 1) : 0;
  if (truncation_ && truncation_->max_length < static_cast<int64_t>(num_added)) {
    fail(kTokenizer, "truncation: max_length",
         c10::str("at least ", num_added, ", the number of added tokens"), c10::str(truncation_->max_length));
  }
  std::vector<std::unique_ptr<ValidText>> valid;
  std::vector<TextTokens> tokens;
  for (const auto text : texts) {
    valid.push_back(std::make_unique<ValidText>(text));
    tokens.push_back(parts_->tokenize(valid.back()->text(), static_cast<int64_t>(tokens.size())));
  }
  if (truncation_) {
    truncate(tokens, *truncation_, static_cast<size_t>(truncation_->max_length) - num_added);
  }
  if (post_processor) tokens = post_processor->process(std::move(tokens), add_special_tokens);
  Encoding encoding;
  for (const auto& part : tokens) {
    const bool is_second = valid.size() > 1 && part.text.data() == valid[1]->text().data();
    const auto& source = *valid[is_second ? 1 : 0];
    for (const auto& token : part.tokens) {
      encoding.ids.push_back(token.id);
      encoding.token_type_ids.push_back(token.type_id);
      encoding.special_tokens_mask.push_back(token.is_special ? 1 : 0);
      encoding.offsets.push_back(token.is_special ? Span() : source.given(token.source));
    }
  }
  encoding.attention_mask.assign(encoding.ids.size(), 1);
  return encoding;
}

void Tokenizer::pad(Encoding& encoding, int64_t length) const {
  const int64_t multiple = padding_->multiple_of;
  length = (length + multiple - 1) / multiple * multiple;
  const auto size = static_cast<int64_t>(encoding.ids.size());
  if (length <= size) return;
  const auto count = static_cast<size_t>(length - size);
  pad_with(encoding.ids, count, padding_->pad_id, padding_->side);
  pad_with(encoding.token_type_ids, count, padding_->pad_type_id, padding_->side);
  pad_with(encoding.attention_mask, count, int64_t{0}, padding_->side);
  pad_with(encoding.special_tokens_mask, count, int64_t{1}, padding_->side);
  pad_with(encoding.offsets, count, Span(), padding_->side);
}

std::string Tokenizer::decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int64_t id : ids) {
    const auto* const token = parts_->token_of(id);
    if (token == nullptr || (skip_special_tokens && parts_->added_tokens->is_special(*token))) continue;
    tokens.push_back(*token);
  }
  std::string between = " ";
  if (parts_->decoder) {
    parts_->decoder->decode(tokens);
    between = "";
  }
  std::string text;
  for (size_t n = 0; n < tokens.size(); ++n) text += (n == 0 ? "" : between) + tokens[n];
  return text;
}

std::optional<int64_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto added = parts_->added_tokens->id_of(token);
  return added ? added : parts_->model->vocabulary().id_of(token);
}

std::optional<std::string> Tokenizer::id_to_token(int64_t id) const {
  const auto* const token = parts_->token_of(id);
  return token == nullptr ? std::nullopt : std::optional(*token);
}

bool Tokenizer::is_special(int64_t id) const {
  const auto* const token = parts_->token_of(id);
  return token != nullptr && parts_->added_tokens->is_special(*token);
}

int64_t Tokenizer::vocab_size() const {
  const auto& vocabulary = parts_->model->vocabulary();
  auto size = static_cast<int64_t>(vocabulary.size());
  parts_->added_tokens->vocabulary().for_each([&](const std::string& token, int64_t) {
    if (!vocabulary.id_of(token)) ++size;
  });
  return size;
}

Tokenizer& Tokenizer::truncation(std::optional<Truncation> truncation) {
  if (truncation && truncation->max_length < 0) {
    fail(kTokenizer, "truncation: max_length", "at least 0", c10::str(truncation->max_length));
  }
  truncation_ = truncation;
  return *this;
}

Tokenizer& Tokenizer::padding(std::optional<Padding> padding) {
  if (padding && padding->multiple_of < 1) {
    fail(kTokenizer, "padding: multiple_of", "at least 1", c10::str(padding->multiple_of));
  }
  if (padding && padding->length.value_or(0) < 0) {
    fail(kTokenizer, "padding: length", "at least 0", c10::str(*padding->length));
  }
  padding_ = padding;
  return *this;
}

std::vector<Span> code_point_offsets(std::string_view text, const std::vector<Span>& offsets) {
  std::vector<int64_t> counts(text.size() + 1);  // the number of code points before each byte
  int64_t count = 0;
  for_each_code_point(text, [&](char32_t, size_t begin, size_t end) {
    for (size_t at = begin; at < end; ++at) counts[at] = count;
    ++count;
  });
  counts[text.size()] = count;
  std::vector<Span> converted;
  converted.reserve(offsets.size());
  const auto at = [&](int64_t byte) {
    if (byte < 0 || byte > static_cast<int64_t>(text.size())) {
      fail("text::code_point_offsets", "offsets", c10::str("bytes in 0 ... ", text.size()), c10::str(byte));
    }
    return counts[static_cast<size_t>(byte)];
  };
  for (const auto& [begin, end] : offsets) converted.push_back({at(begin), at(end)});
  return converted;
}

}  // namespace attend::text
