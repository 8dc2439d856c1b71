#pragma once

#include <memory>
#include <string_view>

#include "text/aligned_text.h"
#include "text/json_field.h"

namespace attend::text {

/// Rewrites a text before it is split into words.
class Normalizer {
 public:
  Normalizer() = default;
  Normalizer(const Normalizer&) = delete;
  Normalizer& operator=(const Normalizer&) = delete;
  virtual ~Normalizer() = default;

  virtual void normalize(AlignedText& text) const = 0;
};

/// The optional steps of BERT's normalizer.
struct BertNormalization {
  bool clean_text, isolate_chinese, strip_accents, lower_case;
};

/// Removes control characters and replaces white space by spaces, puts spaces around Chinese characters,
/// decomposes the text (NFD) and removes accents, and lower-cases each character.
std::unique_ptr<Normalizer> make_bert_normalizer(const BertNormalization& steps);

/// Makes the normalizer of SentencePiece from its table (precompiled_charsmap): a trie over bytes, whose
/// leaves are the positions of replacements. Returns null if the table is damaged.
std::unique_ptr<Normalizer> make_precompiled_normalizer(std::string_view table);

/// Makes the normalizer that a field of tokenizer.json describes. Fails for a kind that is not supported.
std::unique_ptr<Normalizer> read_normalizer(const JsonField& field);

}  // namespace attend::text
