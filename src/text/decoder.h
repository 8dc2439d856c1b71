#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/json_field.h"

namespace attend::text {

/// Turns tokens back into text. A decoder is one step, which rewrites or joins the tokens; the text is what
/// the last step leaves, joined.
class Decoder {
 public:
  Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  virtual ~Decoder() = default;

  virtual void decode(std::vector<std::string>& tokens) const = 0;
};

/// Makes the decoder of WordPiece: pieces that begin with the prefix are joined to those before them, and
/// others get a space. With `cleanup`, the space before a punctuation mark and inside a contraction is
/// removed.
std::unique_ptr<Decoder> make_word_piece_decoder(std::string prefix, bool cleanup);

/// Makes the decoder that a field of tokenizer.json describes. Fails for a kind that is not supported.
std::unique_ptr<Decoder> read_decoder(const JsonField& field);

}  // namespace attend::text
