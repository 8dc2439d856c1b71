#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"

namespace attend::text {

/// The steps that turn a text into tokens. Steps that are null are left out.
struct Pipeline {
  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  std::unique_ptr<const Model> model;
  std::unique_ptr<const PostProcessor> post_processor;
  std::unique_ptr<const Decoder> decoder;
  std::unique_ptr<const AddedTokens> added_tokens;

  /// Returns the tokens of a text in UTF-8, without those that the post-processor adds.
  TextTokens tokenize(std::string_view text, int64_t type_id) const;

  /// Returns the token with an id; nullptr if there is none.
  const std::string* token_of(int64_t id) const;
};

}  // namespace attend::text
