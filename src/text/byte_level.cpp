#include "text/byte_level.h"

#include <array>
#include <utility>

#include "text/unicode.h"

namespace attend::text {
namespace {

/// The characters of all bytes. Those that are not printable, in order, have the characters from U+0100 on.
struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<std::string, 256> utf8{};
  std::array<int16_t, 0x144> bytes{};  ///< -1 for other characters

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool is_printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const char32_t c = is_printable ? byte : next++;
      characters[byte] = c;
      utf8[byte] = text::utf8(c);
      bytes[c] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

char32_t character_of(unsigned char byte) { return alphabet().characters[byte]; }

void to_byte_level(AlignedText& text) {
  AlignedText replaced;
  replaced.first = text.first;
  replaced.text.reserve(text.text.size() * 3 / 2);
  replaced.origins.reserve(text.text.size() * 3 / 2);
  // All bytes of a character stand for the same part of the source as its first byte.
  for_each_code_point(text.text, [&](char32_t, size_t begin, size_t end) {
    for (size_t at = begin; at < end; ++at) {
      replaced.append(alphabet().utf8[static_cast<unsigned char>(text.text[at])], text.origins[begin]);
    }
  });
  text = std::move(replaced);
}

std::optional<std::string> bytes_of(std::string_view text) {
  const auto& bytes = alphabet().bytes;
  std::string found;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c >= bytes.size() || bytes[c] < 0) return {};
    found.push_back(static_cast<char>(bytes[c]));
  }
  return found;
}

}  // namespace attend::text
