#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/aligned_text.h"
#include "text/json_field.h"
#include "text/pattern.h"

namespace attend::text {

/// A normalized text that is split into words and added tokens.
struct Words {
  struct Word {
    ByteRange range;        ///< not empty
    int64_t added_id = -1;  ///< the id of an added token; -1 for a word, which the model splits into tokens
  };

  AlignedText text;
  std::vector<Word> words;

  /// Replaces each word by the parts that `split` returns for its text. Empty parts are dropped.
  template <typename F>
  void split(const F& split);

  /// Rewrites the text of each word by `rewrite`, which gets an AlignedText. Added tokens remain.
  template <typename F>
  void rewrite(const F& rewrite);
};

/// Splits a normalized text into words.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;
  virtual ~PreTokenizer() = default;

  virtual void split(Words& words) const = 0;
};

/// Makes the pre-tokenizer of BERT, which removes white space and isolates punctuation marks.
std::unique_ptr<PreTokenizer> make_bert_pre_tokenizer();

/// Makes the pre-tokenizer that a field of tokenizer.json describes. Fails for a kind that is not supported.
std::unique_ptr<PreTokenizer> read_pre_tokenizer(const JsonField& field);

template <typename F>
void Words::split(const F& split) {
  std::vector<Word> parts;
  parts.reserve(words.size());
  for (const auto& word : words) {
    if (word.added_id >= 0) {
      parts.push_back(word);
      continue;
    }
    const auto [begin, end] = word.range;
    for (const auto& part : split(std::string_view(text.text).substr(begin, end - begin))) {
      if (part.begin < part.end) parts.push_back({{begin + part.begin, begin + part.end}});
    }
  }
  words = std::move(parts);
}

template <typename F>
void Words::rewrite(const F& rewrite) {
  Words rewritten;
  rewritten.words.reserve(words.size());
  for (const auto& [range, added_id] : words) {
    const size_t begin = rewritten.text.text.size();
    if (added_id >= 0) {
      rewritten.text.append(text, range.begin, range.end);
    } else {
      auto word = text.slice(range.begin, range.end);
      rewrite(word);
      rewritten.text.append(word, 0, word.text.size());
    }
    const size_t end = rewritten.text.text.size();
    if (begin < end) rewritten.words.push_back({{begin, end}, added_id});
  }
  *this = std::move(rewritten);
}

}  // namespace attend::text
