#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attend::models {

/// The optional steps of `normalize`.
struct Normalization {
  bool lower_case, strip_accents, isolate_chinese;
};

/// Normalizes a text as BERT's tokenizer does (BertNormalizer of `tokenizers`): removes control characters
/// and bytes that are not UTF-8, replaces white space by spaces, puts spaces around Chinese characters,
/// decomposes the text (NFD) and removes accents, and lower-cases each character.
std::string normalize(std::string_view text, const Normalization& normalization);

/// Returns the words of a normalized text, as views of it: the parts that white space separates, with each
/// punctuation mark as a separate word.
std::vector<std::string_view> split_into_words(std::string_view normalized);

/// Whether a text begins (or ends) with a character of a word: a letter, a mark, a digit or a connector.
bool starts_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

/// Returns a text of less than 2 GiB in lower case, as Python's `str.lower` does.
std::string lower_case(std::string_view text);

/// Returns the number of code points in UTF-8 text.
size_t num_code_points(std::string_view text);

}  // namespace attend::models
