#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "text/vocabulary.h"

namespace attend::text {

/// The tokens <0x00> ... <0xFF> of a vocabulary, into which models with byte fallback split what they don't
/// know.
class ByteTokens {
 public:
  ByteTokens() { ids_.fill(-1); }
  explicit ByteTokens(const Vocabulary& vocabulary);

  /// Whether each byte of a text has a token.
  bool has_all(std::string_view text) const;
  /// Returns the token of a byte; -1 if there is none.
  int64_t operator[](char byte) const { return ids_[static_cast<unsigned char>(byte)]; }

 private:
  std::array<int64_t, 256> ids_{};
};

}  // namespace attend::text
