#pragma once

#include <attend/export.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace attend::models {

/// The tokens of one or two texts, as a model reads them.
struct Encoding {
  std::vector<int64_t> ids;             ///< indices into the vocabulary
  std::vector<int64_t> token_type_ids;  ///< 0 up to and including the first [SEP], then 1
};

/// The uncased WordPiece tokenizer of BERT (Wu 2016, Devlin 2018).
///
/// Control characters are removed, the text is split at white space, punctuation and Chinese characters,
/// decomposed (NFD), stripped of accents and lower-cased. Each word is then split greedily into the longest
/// prefixes that the vocabulary contains, where all but the first begin with ##. A word that cannot be split
/// in this way, or is longer than 100 characters, becomes [UNK].
class ATTEND_API WordPiece {
 public:
  /// Loads a vocabulary, one token per line (vocab.txt).
  ///
  /// Errors (c10::Error): a file that cannot be read, or lacks [UNK], [CLS] or [SEP].
  static WordPiece load(const std::string& path);

  /// The id of a token is its index in the vocabulary.
  ///
  /// Errors (c10::Error): a vocabulary without [UNK], [CLS] or [SEP].
  explicit WordPiece(std::vector<std::string> vocabulary);

  /// The ids of a text's tokens, without [CLS] and [SEP]. Bytes that are not UTF-8 are ignored. Special
  /// tokens that occur in the text, such as "[SEP]", become the token of that name.
  std::vector<int64_t> tokenize(std::string_view text) const;

  /// [CLS] text [SEP], where the text is truncated to at most `max_length` tokens in total.
  ///
  /// Errors (c10::Error): a `max_length` below 2.
  Encoding encode(std::string_view text, int64_t max_length = 512) const;

  /// [CLS] first [SEP] second [SEP], where the longer text is truncated until there are at most `max_length`
  /// tokens in total.
  ///
  /// Errors (c10::Error): a `max_length` below 3.
  Encoding encode(std::string_view first, std::string_view second, int64_t max_length = 512) const;

  /// The token with an id.
  ///
  /// Errors (c10::Error): an id that is not in the vocabulary.
  const std::string& id_to_token(int64_t id) const;

  /// The number of tokens in the vocabulary.
  int64_t vocab_size() const { return static_cast<int64_t>(vocabulary_.size()); }

 private:
  void append_pieces(std::string_view word, std::vector<int64_t>& ids) const;
  void append_words(std::string_view text, std::vector<int64_t>& ids) const;
  int64_t required_id(const char* token) const;

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<std::string> vocabulary_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> ids_;
  std::vector<std::pair<std::string, int64_t>> special_tokens_;
  int64_t unk_id_, cls_id_, sep_id_;
};

}  // namespace attend::models
