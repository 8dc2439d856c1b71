#include <attend/models/word_piece.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "core/checks.h"
#include "models/basic_tokenizer.h"
#include "text/token_matcher.h"

namespace attend::models {
namespace {

using checks::fail;
using text::TokenMatcher;

constexpr auto kWordPiece = "models::WordPiece";

/// Calls `on_text` for the parts of a text between tokens, and `on_token` for the ids of the tokens, in
/// order.
template <typename OnText, typename OnToken>
void split_at_tokens(std::string_view text, const TokenMatcher& tokens, const OnText& on_text,
                     const OnToken& on_token) {
  size_t begin = 0;
  for (const auto& match : tokens.find(text)) {
    on_text(text.substr(begin, match.begin - begin));
    on_token(match.id);
    begin = match.end;
  }
  on_text(text.substr(begin));
}

Normalization normalization_of(const WordPieceOptions& options) {
  return {options.do_lower_case(), options.strip_accents().value_or(options.do_lower_case()),
          options.tokenize_chinese_chars()};
}

}  // namespace

WordPiece WordPiece::load(const std::string& path, const WordPieceOptions& options) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(kWordPiece, path.c_str(), "a readable file", std::generic_category().message(errno));
  std::vector<std::string> vocabulary;
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    vocabulary.push_back(line);
  }
  return WordPiece(std::move(vocabulary), options);
}

WordPiece::WordPiece(std::vector<std::string> vocabulary, const WordPieceOptions& options)
    : options_(options), vocabulary_(std::move(vocabulary)) {
  for (size_t n = 0; n < vocabulary_.size(); ++n) {
    ids_[vocabulary_[n]] = static_cast<int64_t>(n);
    max_token_size_ = std::max(max_token_size_, vocabulary_[n].size());
  }
  add_tokens();
  unk_id_ = required_id(options_.unk_token());
  cls_id_ = required_id(options_.cls_token());
  sep_id_ = required_id(options_.sep_token());
}

/// Gives ids to the added tokens that have none, and prepares the search for added and special tokens.
void WordPiece::add_tokens() {
  std::vector<TokenMatcher::Token> given, normalized;
  std::unordered_set<std::string_view> seen;
  const auto add = [&](const AddedToken& token, int64_t id) {
    if (!token.normalized) return given.push_back({token.content, id, token.single_word});
    auto text = normalize(token.content, normalization_of(options_));
    if (!text.empty()) normalized.push_back({std::move(text), id, token.single_word});
  };
  for (const auto& token : options_.added_tokens()) {
    if (token.content.empty()) fail(kWordPiece, "added_tokens", "tokens that are not empty", "an empty one");
    if (!seen.insert(token.content).second) continue;
    if (!token_to_id(token.content)) {
      added_ids_.emplace(token.content, vocab_size());
      vocabulary_.push_back(token.content);
    }
    add(token, *token_to_id(token.content));
  }
  for (const auto* special : {&options_.unk_token(), &options_.cls_token(), &options_.sep_token(),
                              &options_.pad_token(), &options_.mask_token()}) {
    const auto id = token_to_id(*special);
    if (id && !special->empty() && seen.insert(*special).second) add({*special}, *id);
  }
  given_tokens_ = std::make_shared<TokenMatcher>(std::move(given));
  normalized_tokens_ = std::make_shared<TokenMatcher>(std::move(normalized));
}

int64_t WordPiece::required_id(const std::string& token) const {
  const auto id = token_to_id(token);
  if (!id) fail(kWordPiece, "vocabulary", c10::str("a vocabulary with ", token), "one without it");
  return *id;
}

const std::string& WordPiece::id_to_token(int64_t id) const {
  if (id < 0 || id >= vocab_size())
    fail(kWordPiece, "id", c10::str("0 ... ", vocab_size() - 1), c10::str(id));
  return vocabulary_[static_cast<size_t>(id)];
}

std::optional<int64_t> WordPiece::token_to_id(std::string_view token) const {
  if (const auto found = ids_.find(token); found != ids_.end()) return found->second;
  const auto added = added_ids_.find(token);
  return added == added_ids_.end() ? std::nullopt : std::optional(added->second);
}

/// Appends the pieces of a word, or [UNK].
void WordPiece::append_pieces(std::string_view word, std::vector<int64_t>& ids) const {
  constexpr size_t kMaxWordLength = 100;  // in code points
  if (num_code_points(word) > kMaxWordLength) return ids.push_back(unk_id_);
  const auto is_inside_code_point = [&](size_t at) {
    return at < word.size() && (static_cast<unsigned char>(word[at]) & 0xC0U) == 0x80U;
  };
  const size_t before = ids.size();
  std::string text = "##";  // "##" and the word; the "##" is moved in front of each piece after the first
  text += word;
  for (size_t first = 0; first < word.size();) {
    const size_t prefix = first == 0 ? 0 : 2;
    if (first > 0) text[first] = text[first + 1] = '#';
    const auto piece = [&](size_t size) {
      return std::string_view(text).substr(first + 2 - prefix, prefix + size);
    };
    size_t size = std::min(word.size() - first, max_token_size_);
    auto found = ids_.end();
    for (; size > 0; --size) {
      if (is_inside_code_point(first + size)) continue;
      found = ids_.find(piece(size));
      if (found != ids_.end()) break;
    }
    if (size == 0) {
      ids.resize(before);
      return ids.push_back(unk_id_);
    }
    ids.push_back(found->second);
    first += size;
  }
}

void WordPiece::append_words(std::string_view normalized, std::vector<int64_t>& ids) const {
  for (const auto word : split_into_words(normalized)) append_pieces(word, ids);
}

/// Appends the tokens of a part of a text between tokens that are found in the text as given.
void WordPiece::append_text(std::string_view text, std::vector<int64_t>& ids) const {
  if (text.empty()) return;
  const auto normalized = normalize(text, normalization_of(options_));
  split_at_tokens(
      normalized, *normalized_tokens_, [&](std::string_view part) { append_words(part, ids); },
      [&](int64_t id) { ids.push_back(id); });
}

std::vector<int64_t> WordPiece::tokenize(std::string_view text) const {
  std::vector<int64_t> ids;
  split_at_tokens(
      text, *given_tokens_, [&](std::string_view part) { append_text(part, ids); },
      [&](int64_t id) { ids.push_back(id); });
  return ids;
}

void WordPiece::truncate(std::vector<int64_t>& ids, size_t length) const {
  if (ids.size() <= length) return;
  if (options_.truncation_side() == TruncationSide::left) {
    ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(length));
  } else {
    ids.resize(length);
  }
}

Encoding WordPiece::encode(std::string_view text, int64_t max_length) const {
  if (max_length < 2) fail(kWordPiece, "max_length", "at least 2", c10::str(max_length));
  auto ids = tokenize(text);
  truncate(ids, static_cast<size_t>(max_length - 2));
  ids.insert(ids.begin(), cls_id_);
  ids.push_back(sep_id_);
  const size_t length = ids.size();
  return {std::move(ids), std::vector<int64_t>(length, 0)};
}

Encoding WordPiece::encode(std::string_view first, std::string_view second, int64_t max_length) const {
  if (max_length < 3) fail(kWordPiece, "max_length", "at least 3", c10::str(max_length));
  auto left = tokenize(first), right = tokenize(second);
  const auto limit = static_cast<size_t>(max_length - 3);
  if (left.size() + right.size() > limit) {
    auto& shorter = left.size() > right.size() ? right : left;
    auto& longer = left.size() > right.size() ? left : right;
    if (2 * shorter.size() > limit) truncate(shorter, limit / 2);
    truncate(longer, limit - shorter.size());
  }
  Encoding encoding{{cls_id_}, {0}};
  const auto append = [&encoding, this](const std::vector<int64_t>& ids, int64_t type) {
    encoding.ids.insert(encoding.ids.end(), ids.begin(), ids.end());
    encoding.ids.push_back(sep_id_);
    encoding.token_type_ids.resize(encoding.ids.size(), type);
  };
  append(left, 0);
  append(right, 1);
  return encoding;
}

}  // namespace attend::models
