#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attend::models {

/// What `normalize` does besides cleaning.
struct Normalization {
  bool lower_case, strip_accents, isolate_chinese;
};

/// The normalization of BERT's tokenizer (BertNormalizer of `tokenizers`): removes control characters
/// and bytes that are not UTF-8, makes white space spaces, puts spaces around Chinese characters, decomposes
/// (NFD) and removes accents, and lower-cases each character.
std::string normalize(std::string_view text, const Normalization& normalization);

/// The words of a normalized text, which they refer to: what white space separates, and each punctuation
/// mark.
std::vector<std::string_view> split_into_words(std::string_view normalized);

/// Whether a text begins or ends with a character of a word: a letter, a mark, a digit, a connector.
bool starts_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

/// A text of less than 2 GiB in lower case, as Python's `str.lower` maps it.
std::string lower_case(std::string_view text);

/// The number of code points in UTF-8 text.
size_t num_code_points(std::string_view text);

}  // namespace attend::models
