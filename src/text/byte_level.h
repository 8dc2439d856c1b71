#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/aligned_text.h"

/// The alphabet of byte-level tokenizers (GPT-2, Radford 2019): a printable character for each byte.
namespace attend::text {

/// Returns the character of a byte. The space is U+0120, and printable bytes are themselves.
char32_t character_of(unsigned char byte);

/// Replaces each byte of a text by its character.
void to_byte_level(AlignedText& text);

/// Returns the bytes of a text that consists of characters of bytes; nullopt for other texts.
std::optional<std::string> bytes_of(std::string_view text);

}  // namespace attend::text
