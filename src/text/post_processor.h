#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/aligned_text.h"
#include "text/json_field.h"

namespace attend::text {

/// A token of a text. Trimming counts the white space at its ends.
struct TextToken {
  int64_t id = 0;
  int64_t type_id = 0;
  SourceRange source = {};
  bool is_special = false;  ///< whether a post-processor added it
  uint32_t num_leading = 0, num_trailing = 0;
};

/// The tokens of a text, which they view.
struct TextTokens {
  std::string_view text;
  std::vector<TextToken> tokens;
};

/// Adds special tokens to the tokens of one or two texts, sets type ids and trims offsets.
class PostProcessor {
 public:
  PostProcessor() = default;
  PostProcessor(const PostProcessor&) = delete;
  PostProcessor& operator=(const PostProcessor&) = delete;
  virtual ~PostProcessor() = default;

  /// Returns the parts of the result in order.
  virtual std::vector<TextTokens> process(std::vector<TextTokens> texts, bool add_special_tokens) const = 0;

  /// Returns the number of special tokens that are added to one text, or to two.
  virtual size_t num_added(bool is_pair) const = 0;

  /// Whether a step puts the texts into a template.
  virtual bool has_template() const = 0;
};

/// A part of a template: a text, or special tokens.
struct TemplatePart {
  int text = -1;                  ///< 0 or 1; -1 for special tokens
  std::vector<int64_t> ids = {};  ///< the special tokens
  int64_t type_id = 0;
};
using Template = std::vector<TemplatePart>;

/// Makes a post-processor that puts one or two texts into templates.
std::unique_ptr<PostProcessor> make_template(Template single, Template pair);

/// Makes the post-processor that a field of tokenizer.json describes. Fails for a kind that is not supported.
std::unique_ptr<PostProcessor> read_post_processor(const JsonField& field);

}  // namespace attend::text
