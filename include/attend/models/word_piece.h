#pragma once

#include <attend/export.h>
#include <torch/arg.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attend::text {
class TokenMatcher;
}

namespace attend::models {

/// The tokens of one or two texts, as inputs of a model.
struct Encoding {
  std::vector<int64_t> ids;             ///< indices into the vocabulary
  std::vector<int64_t> token_type_ids;  ///< 0 up to and including the first [SEP], then 1
};

/// A token that is found in a text as a whole, before the text is split into words.
struct AddedToken {
  std::string content;  ///< the text of the token
  /// Whether the token is found in the normalized text, rather than in the text as given.
  bool normalized = false;
  /// Whether the token is ignored where it touches a letter, a mark, a digit or an underscore.
  bool single_word = false;
};

/// The end of a text from which tokens are removed.
enum class TruncationSide {
  right,  ///< the last tokens are removed
  left,   ///< the first tokens are removed
};

/// Options for `WordPiece`, with the names and defaults of `transformers`' BertTokenizer.
struct ATTEND_API WordPieceOptions {
  /// Whether the text is lower-cased.
  TORCH_ARG(bool, do_lower_case) = true;
  /// Whether the text is decomposed (NFD) and accents are removed. Default: the value of `do_lower_case`.
  TORCH_ARG(std::optional<bool>, strip_accents) = std::nullopt;
  /// Whether each Chinese character is a word.
  TORCH_ARG(bool, tokenize_chinese_chars) = true;
  /// The token for a word that cannot be split into pieces.
  TORCH_ARG(std::string, unk_token) = "[UNK]";
  /// The token before the first text.
  TORCH_ARG(std::string, cls_token) = "[CLS]";
  /// The token after each text.
  TORCH_ARG(std::string, sep_token) = "[SEP]";
  /// The token of padding; it is not required to be in the vocabulary.
  TORCH_ARG(std::string, pad_token) = "[PAD]";
  /// The token of a masked word; it is not required to be in the vocabulary.
  TORCH_ARG(std::string, mask_token) = "[MASK]";
  /// Tokens that are found in a text as a whole, besides those above. Those that the vocabulary lacks get the
  /// ids that follow it, in order.
  TORCH_ARG(std::vector<AddedToken>, added_tokens) = {};
  /// The end from which `encode` removes tokens.
  TORCH_ARG(TruncationSide, truncation_side) = TruncationSide::right;
  /// The maximum number of tokens that the model of this tokenizer can read. Default: unknown.
  TORCH_ARG(std::optional<int64_t>, model_max_length) = std::nullopt;
};

/// The WordPiece tokenizer of BERT (Wu 2016, Devlin 2018).
///
/// Control characters are removed, and the text is split at white space, punctuation and Chinese characters.
/// The tokenizer of an uncased model, which is the default, also decomposes it (NFD), removes accents and
/// lower-cases it. Each word is then split greedily into the longest prefixes that the vocabulary contains,
/// where all but the first begin with ##. A word that cannot be split in this way, or is longer than 100
/// characters, becomes [UNK].
///
/// The time is linear in the length of the text.
class ATTEND_API WordPiece {
 public:
  /// Loads a vocabulary, one token per line (vocab.txt). `load_word_piece` also reads the settings beside it.
  ///
  /// Errors (c10::Error): a file that cannot be read, or lacks the tokens [UNK], [CLS] or [SEP] of the
  /// options.
  static WordPiece load(const std::string& path, const WordPieceOptions& options = {});

  /// Makes a tokenizer with a vocabulary, in which the index of a token is its id.
  ///
  /// Errors (c10::Error): a vocabulary without the tokens [UNK], [CLS] or [SEP] of the options, and an empty
  /// added token.
  explicit WordPiece(std::vector<std::string> vocabulary, const WordPieceOptions& options = {});

  /// Returns the ids of the tokens of a text, without [CLS] and [SEP]. Bytes that are not UTF-8 are ignored.
  /// Special and added tokens that occur in the text, such as "[SEP]", become the token of that name.
  std::vector<int64_t> tokenize(std::string_view text) const;

  /// Returns the tokens [CLS] text [SEP], with the text truncated so that there are at most `max_length`
  /// tokens in total.
  ///
  /// Errors (c10::Error): a `max_length` below 2.
  Encoding encode(std::string_view text, int64_t max_length = 512) const;

  /// Returns the tokens [CLS] first [SEP] second [SEP], at most `max_length` in total: the longer text is
  /// truncated to the length of the shorter, and then both to the same length (an odd token goes to the
  /// longer text, or to the second).
  ///
  /// Errors (c10::Error): a `max_length` below 3.
  Encoding encode(std::string_view first, std::string_view second, int64_t max_length = 512) const;

  /// Returns the token with an id.
  ///
  /// Errors (c10::Error): an id that is not in the vocabulary.
  const std::string& id_to_token(int64_t id) const;

  /// Returns the id of a token; nullopt if the vocabulary lacks the token.
  std::optional<int64_t> token_to_id(std::string_view token) const;

  /// Returns the number of tokens in the vocabulary, including added tokens.
  int64_t vocab_size() const { return static_cast<int64_t>(vocabulary_.size()); }
  /// The options.
  const WordPieceOptions& options() const { return options_; }

 private:
  void append_text(std::string_view text, std::vector<int64_t>& ids) const;
  void append_words(std::string_view normalized, std::vector<int64_t>& ids) const;
  void append_pieces(std::string_view word, std::vector<int64_t>& ids) const;
  void truncate(std::vector<int64_t>& ids, size_t length) const;
  int64_t required_id(const std::string& token) const;
  void add_tokens();

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  WordPieceOptions options_;
  std::vector<std::string> vocabulary_;
  using Ids = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;
  Ids ids_;  ///< the ids of the tokens into which words are split
  /// The ids of added tokens that the vocabulary lacks; no word is split into these.
  Ids added_ids_;
  size_t max_token_size_ = 0;  ///< in bytes
  int64_t unk_id_, cls_id_, sep_id_;
  std::shared_ptr<const text::TokenMatcher> given_tokens_,
      normalized_tokens_;  ///< in the text and the normalized
};

/// Loads the tokenizer of a BERT from a folder with vocab.txt. The optional file tokenizer_config.json sets
/// the options; without its `added_tokens_decoder`, special_tokens_map.json and added_tokens.json, in which
/// older versions of `transformers` stored the tokens, do so as well.
///
/// Errors (c10::Error): a file that cannot be read, settings that would change the ids and are not supported,
/// by name (another tokenizer_class, do_basic_tokenize, never_split, split_special_tokens), left padding, and
/// added tokens whose ids do not follow the vocabulary.
ATTEND_API WordPiece load_word_piece(const std::string& folder);

}  // namespace attend::models
