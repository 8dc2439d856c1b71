#include <attend/models/word_piece.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <limits>
#include <system_error>

#include "core/checks.h"
#include "models/basic_tokenizer.h"

namespace attend::models {
namespace {

using checks::fail;

constexpr auto kWordPiece = "models::WordPiece";
constexpr size_t kMaxWordLength = 100;  // in code points

}  // namespace

WordPiece WordPiece::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(kWordPiece, path.c_str(), "a readable file", std::generic_category().message(errno));
  std::vector<std::string> vocabulary;
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    vocabulary.push_back(line);
  }
  return WordPiece(std::move(vocabulary));
}

WordPiece::WordPiece(std::vector<std::string> vocabulary) : vocabulary_(std::move(vocabulary)) {
  for (size_t n = 0; n < vocabulary_.size(); ++n) ids_[vocabulary_[n]] = static_cast<int64_t>(n);
  unk_id_ = required_id("[UNK]");
  cls_id_ = required_id("[CLS]");
  sep_id_ = required_id("[SEP]");
  for (const char* token : {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"}) {
    if (const auto found = ids_.find(token); found != ids_.end()) special_tokens_.emplace_back(*found);
  }
}

int64_t WordPiece::required_id(const char* token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end())
    fail(kWordPiece, "vocabulary", c10::str("a vocabulary with ", token), "one without it");
  return found->second;
}

const std::string& WordPiece::id_to_token(int64_t id) const {
  if (id < 0 || id >= vocab_size())
    fail(kWordPiece, "id", c10::str("0 ... ", vocab_size() - 1), c10::str(id));
  return vocabulary_[static_cast<size_t>(id)];
}

/// Appends the pieces of a word, or [UNK].
void WordPiece::append_pieces(std::string_view word, std::vector<int64_t>& ids) const {
  const size_t before = ids.size();
  bool is_known = num_code_points(word) <= kMaxWordLength;
  for (size_t first = 0; is_known && first < word.size();) {
    std::string piece(first == 0 ? "" : "##");
    const size_t prefix = piece.size();
    piece += word.substr(first);
    auto found = ids_.find(piece);
    while (found == ids_.end() && piece.size() > prefix) {
      piece.pop_back();  // byte by byte: no token ends within a code point
      found = ids_.find(piece);
    }
    is_known = piece.size() > prefix;
    if (is_known) ids.push_back(found->second);
    first += piece.size() - prefix;
  }
  if (is_known) return;
  ids.resize(before);
  ids.push_back(unk_id_);
}

void WordPiece::append_words(std::string_view text, std::vector<int64_t>& ids) const {
  for (const auto& word : basic_tokenize(text)) append_pieces(word, ids);
}

std::vector<int64_t> WordPiece::tokenize(std::string_view text) const {
  constexpr size_t kMaxBytes = std::numeric_limits<int32_t>::max();
  if (text.size() > kMaxBytes)
    fail(kWordPiece, "text", c10::str("at most ", kMaxBytes, " bytes"), c10::str(text.size()));
  std::vector<int64_t> ids;
  while (!text.empty()) {
    size_t first = std::string_view::npos;
    const std::pair<std::string, int64_t>* next = nullptr;
    for (const auto& candidate : special_tokens_) {
      const size_t at = text.find(candidate.first);
      if (at < first) {
        first = at;
        next = &candidate;
      }
    }
    append_words(text.substr(0, first), ids);
    if (next == nullptr) break;
    ids.push_back(next->second);
    text.remove_prefix(first + next->first.size());
  }
  return ids;
}

Encoding WordPiece::encode(std::string_view text, int64_t max_length) const {
  if (max_length < 2) fail(kWordPiece, "max_length", "at least 2", c10::str(max_length));
  auto ids = tokenize(text);
  ids.resize(std::min(ids.size(), static_cast<size_t>(max_length - 2)));
  ids.insert(ids.begin(), cls_id_);
  ids.push_back(sep_id_);
  const size_t length = ids.size();
  return {std::move(ids), std::vector<int64_t>(length, 0)};
}

Encoding WordPiece::encode(std::string_view first, std::string_view second, int64_t max_length) const {
  if (max_length < 3) fail(kWordPiece, "max_length", "at least 3", c10::str(max_length));
  auto left = tokenize(first), right = tokenize(second);
  while (static_cast<int64_t>(left.size() + right.size()) > max_length - 3) {
    (left.size() > right.size() ? left : right).pop_back();
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
