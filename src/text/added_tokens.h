#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/json_field.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_matcher.h"
#include "text/vocabulary.h"

namespace attend::text {

/// A token that is found in a text as a whole, before the text is split into words.
struct AddedTokenRule {
  std::string content;
  bool single_word = false;  ///< whether it is ignored where it touches a character of a word
  bool strip_left = false;   ///< whether it takes the white space before it
  bool strip_right = false;  ///< whether it takes the white space after it
  bool normalized = false;   ///< whether it is found in the normalized text
  bool special = false;      ///< whether it is left out of decoded text on request
};

/// The tokens that are found as a whole, and their ids.
class AddedTokens {
 public:
  /// Adds tokens to a vocabulary. Those that it lacks get the ids that follow it.
  AddedTokens(const std::vector<AddedTokenRule>& rules, const Vocabulary& vocabulary,
              const Normalizer* normalizer);

  /// Splits a text at the tokens and normalizes what is between them.
  Words split(std::string_view text, const Normalizer* normalizer) const;

  std::optional<int64_t> id_of(std::string_view content) const { return vocabulary_.id_of(content); }
  /// Returns the token with an id; nullptr if no added token has it.
  const AddedTokenRule* find(int64_t id) const;
  /// The ids of special tokens, ascending.
  const std::vector<int64_t>& special_ids() const { return special_ids_; }
  /// Whether a token has the content of a special token.
  bool is_special(std::string_view content) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Segment {
    ByteRange range;
    int64_t id;  ///< -1 for a text between tokens
  };
  std::vector<Segment> segments(std::string_view text, const TokenMatcher& matcher) const;

  std::unordered_map<int64_t, AddedTokenRule> rules_;
  Vocabulary vocabulary_;
  std::vector<int64_t> special_ids_;
  TokenMatcher given_, normalized_;  ///< in the text as given, and in the normalized text
};

/// Reads the tokens of a list. `ids` receives the ids that the file states for them.
std::vector<AddedTokenRule> read_added_tokens(const JsonField& field, std::vector<int64_t>& ids);

}  // namespace attend::text
