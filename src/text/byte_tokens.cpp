#include "text/byte_tokens.h"

#include <algorithm>

namespace attend::text {

ByteTokens::ByteTokens(const Vocabulary& vocabulary) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (size_t byte = 0; byte < ids_.size(); ++byte) {
    const auto token = std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + '>';
    ids_[byte] = vocabulary.id_of(token).value_or(-1);
  }
}

bool ByteTokens::has_all(std::string_view text) const {
  return std::ranges::all_of(text, [&](char byte) { return (*this)[byte] >= 0; });
}

}  // namespace attend::text
