#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attend::models {

/// The first stage of the uncased WordPiece tokenizer (BasicTokenizer in BERT's source): splits a text of
/// less than 2 GiB into lower-case words without control characters and accents. Each punctuation mark and
/// Chinese character is a word. Bytes that are not UTF-8 are ignored.
std::vector<std::string> basic_tokenize(std::string_view text);

/// The number of code points in UTF-8 text.
size_t num_code_points(std::string_view text);

}  // namespace attend::models
