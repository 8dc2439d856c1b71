#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>

/// The whole number that `text` is, if it is one from `low` to `high`, and nothing but one.
inline std::optional<int64_t> whole_number(std::string_view text, int64_t low, int64_t high) {
  int64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || end != last || number < low || number > high) return std::nullopt;
  return number;
}
