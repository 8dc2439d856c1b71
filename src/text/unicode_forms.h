#pragma once

#include "text/aligned_text.h"

namespace attend::text {

/// The normalization forms of Unicode.
enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

/// Rewrites a text in a normalization form. A decomposed code point replaces the composed one, and those that
/// follow it are inserted; a composed code point replaces the first of its parts.
void to_unicode_form(AlignedText& text, UnicodeForm form);

}  // namespace attend::text
