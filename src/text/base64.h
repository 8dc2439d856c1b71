#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace attend::text {

/// Returns the bytes of a text in base 64 (RFC 4648), with or without padding; nullopt if it is not base 64.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace attend::text
