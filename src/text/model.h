#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/json_field.h"
#include "text/vocabulary.h"

namespace attend::text {

/// A token of a word, with its range of bytes.
struct WordToken {
  int64_t id;
  size_t begin, end;
};

/// Splits words into tokens.
class Model {
 public:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  /// Appends the tokens of a word that is not empty.
  virtual void tokenize(std::string_view word, std::vector<WordToken>& tokens) const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
};

/// The settings of WordPiece.
struct WordPieceSettings {
  int64_t unk_id;                        ///< the token for a word that cannot be split
  std::string continuing_prefix = "##";  ///< what precedes each piece but the first in the vocabulary
  size_t max_length = 100;               ///< the length in code points above which a word is unknown
};

/// Makes a WordPiece model (Wu 2016): a word is split greedily into the longest prefixes in the vocabulary.
std::unique_ptr<Model> make_word_piece(Vocabulary vocabulary, const WordPieceSettings& settings);

/// Reads a BPE model (Sennrich 2016).
std::unique_ptr<Model> read_bpe(const JsonField& field);
/// Reads a unigram language model (Kudo 2018).
std::unique_ptr<Model> read_unigram(const JsonField& field);
std::unique_ptr<Model> read_word_piece(const JsonField& field);

/// Makes the model that a field of tokenizer.json describes. Fails for a kind that is not supported.
std::unique_ptr<Model> read_model(const JsonField& field);

}  // namespace attend::text
