#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attend::models {

/// The words of a text of less than 2 GiB as uncased BERT reads it: without control characters and accents,
/// in lower case, split at spaces, punctuation and Chinese characters; each punctuation mark and Chinese
/// character is a word.
std::vector<std::string> words_of(std::string_view text);

/// The number of code points of a text that is UTF-8.
size_t length_of(std::string_view text);

}  // namespace attend::models
