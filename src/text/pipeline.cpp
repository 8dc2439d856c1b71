#include "text/pipeline.h"

#include <unordered_map>
#include <utility>

#include "text/byte_level.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

/// The numbers of code points of white space at the two ends of a token, in which a byte-level space counts.
std::pair<uint32_t, uint32_t> space_around(std::string_view token) {
  const auto is_blank = [](char32_t c) { return c == character_of(' ') || is_space(c); };
  uint32_t leading = 0, trailing = 0;
  bool is_leading = true;
  for_each_code_point(token, [&](char32_t c, size_t, size_t) {
    const bool blank = is_blank(c);
    is_leading = is_leading && blank;
    leading += is_leading ? 1 : 0;
    trailing = blank ? trailing + 1 : 0;
  });
  return {leading, trailing};
}

/// Splits words into tokens. The tokens of short words are kept for the next time.
class WordTokenizer {
 public:
  explicit WordTokenizer(const Model& model) : model_(model) {}

  /// `word` must stay in place.
  const std::vector<WordToken>& operator()(std::string_view word) {
    constexpr size_t kMaxSize = 64, kMaxCount = 16'384;
    if (word.size() > kMaxSize) return compute(word, tokens_);
    if (const auto found = known_.find(word); found != known_.end()) return found->second;
    if (known_.size() == kMaxCount) return compute(word, tokens_);
    return compute(word, known_[word]);
  }

 private:
  const std::vector<WordToken>& compute(std::string_view word, std::vector<WordToken>& tokens) const {
    tokens.clear();
    model_.tokenize(word, tokens);
    return tokens;
  }

  const Model& model_;
  std::unordered_map<std::string_view, std::vector<WordToken>> known_;
  std::vector<WordToken> tokens_;
};

}  // namespace

TextTokens Pipeline::tokenize(std::string_view text, int64_t type_id) const {
  auto words = added_tokens->split(text, normalizer.get());
  if (pre_tokenizer != nullptr) pre_tokenizer->split(words);
  TextTokens result{text, {}};
  const auto add = [&](int64_t id, ByteRange range, std::string_view token) {
    const auto [leading, trailing] = space_around(token);
    const auto source = words.text.origin(range.begin, range.end);
    result.tokens.push_back({id, type_id, source, false, leading, trailing});
  };
  WordTokenizer tokens_of(*model);
  for (const auto& [range, added_id] : words.words) {
    if (range.begin == range.end) continue;
    const auto word = std::string_view(words.text.text).substr(range.begin, range.end - range.begin);
    if (added_id >= 0) {
      add(added_id, range, word);
      continue;
    }
    for (const auto& token : tokens_of(word)) {
      // Tokens of bytes can count more bytes than a word has, which has a suffix.
      const size_t end = std::min(range.begin + token.end, range.end);
      const size_t begin = std::min(range.begin + token.begin, end - 1);
      add(token.id, {begin, end}, *model->vocabulary().token_of(token.id));
    }
  }
  return result;
}

const std::string* Pipeline::token_of(int64_t id) const {
  if (const auto* const added = added_tokens->find(id)) return &added->content;
  return model->vocabulary().token_of(id);
}

}  // namespace attend::text
