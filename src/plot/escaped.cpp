#include <algorithm>
#include <nlohmann/json.hpp>

#include "plot/plot.h"

namespace attend::plot {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// The text with U+FFFD for what is not UTF-8, as the writer of JSON knows it.
std::string as_utf8(std::string_view text) {
  using nlohmann::json;
  const auto written = json(text).dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
  return json::parse(written).get<std::string>();
}

/// What XML 1.0 forbids, at the beginning of a text that is UTF-8: a control character, U+FFFE or U+FFFF; its
/// length, or 0.
size_t forbidden_length(std::string_view text) {
  if (text.starts_with("\xEF\xBF\xBE") || text.starts_with("\xEF\xBF\xBF")) return 3;
  const auto byte = static_cast<unsigned char>(text[0]);
  return byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r' ? 1 : 0;
}

std::string_view escape_of(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return {};
  }
}

}  // namespace

std::string escaped(std::string_view given) {
  const auto utf8 = as_utf8(given);
  std::string result;
  for (std::string_view text = utf8; !text.empty();) {
    const size_t forbidden = forbidden_length(text);
    const auto escape = escape_of(text[0]);
    result += forbidden > 0 ? kReplacement : escape.empty() ? text.substr(0, 1) : escape;
    text.remove_prefix(std::max<size_t>(forbidden, 1));
  }
  return result;
}

}  // namespace attend::plot
