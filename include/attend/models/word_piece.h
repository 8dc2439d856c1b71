#pragma once

#include <attend/export.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attend::models {

/// What a text is to a model: numbers of tokens, and of which of two texts each is.
struct Encoding {
  std::vector<int64_t> ids;
  std::vector<int64_t> token_types;  ///< 0 up to the first [SEP], then 1
};

/// The uncased WordPiece tokenizer of BERT (Wu 2016, Devlin 2018). A text is stripped of control characters,
/// split at spaces, punctuation and Chinese characters, decomposed (NFD), freed of accents and put in lower
/// case; of each word the longest prefix that the vocabulary has is a token, and so on with the rest, whose
/// pieces bear ## before them; a word that can't be had so is [UNK].
class ATTEND_API WordPiece {
 public:
  /// Reads a vocabulary, one token a line, as `vocab.txt`. Errors (c10::Error): a file that can't be read, or
  /// lacks [UNK], [CLS] or [SEP].
  static WordPiece load(const std::string& path);
  explicit WordPiece(std::vector<std::string> vocabulary);

  /// The tokens of a text, without [CLS] and [SEP]. UTF-8; what is not is ignored. A special token that
  /// stands in the text, such as [SEP], is taken for one.
  std::vector<int64_t> tokens_of(std::string_view text) const;

  /// [CLS] text [SEP], the text cut so that there are at most `max_length` tokens. Error: a maximum below 2.
  Encoding encode(std::string_view text, int64_t max_length = 512) const;
  /// [CLS] first [SEP] second [SEP], the longer text cut as far as needed. Error: a maximum below 3.
  Encoding encode(std::string_view first, std::string_view second, int64_t max_length = 512) const;

  /// As in the vocabulary. Error: no such token.
  const std::string& token(int64_t id) const;
  int64_t size() const { return static_cast<int64_t>(vocabulary_.size()); }

 private:
  void append_pieces(std::string_view word, std::vector<int64_t>& ids) const;
  void append_words(std::string_view text, std::vector<int64_t>& ids) const;
  int64_t special(const char* token) const;

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<std::string> vocabulary_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> numbers_;
  std::vector<std::pair<std::string, int64_t>> specials_;
  int64_t unknown_, begin_, separator_;
};

}  // namespace attend::models
