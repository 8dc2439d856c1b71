#include "checkpoint/key_text.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "checkpoint/dtype_names.h"

namespace attend::checkpoint {
namespace {

/// Returns the shortest decimal text of a number, as Python's `repr` formats it.
std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer{};
  const auto format = [&](std::chars_format style) {
    const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, style);
    return std::string(buffer.data(), result.ptr);
  };
  auto text = format(std::chars_format::scientific);
  const int exponent = std::stoi(text.substr(text.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return text;
  text = format(std::chars_format::fixed);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

/// Returns an integer in decimal, given its bytes in two's complement, the lowest byte first.
std::string integer_text(std::string_view bytes) {
  constexpr uint64_t kBase = 1'000'000'000;
  constexpr size_t kDigits = 9;
  const bool is_negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80U) != 0;
  std::vector<uint32_t> magnitude;  // base 256, the highest byte first
  uint32_t carry = is_negative ? 1 : 0;
  for (const char byte : bytes) {
    const uint32_t value =
        (is_negative ? 0xffU - static_cast<unsigned char>(byte) : static_cast<unsigned char>(byte)) + carry;
    magnitude.push_back(value & 0xffU);
    carry = value >> 8U;
  }
  std::ranges::reverse(magnitude);
  std::string text;
  for (size_t first = 0; first < magnitude.size();) {
    uint64_t remainder = 0;
    for (size_t n = first; n < magnitude.size(); ++n) {
      remainder = remainder << 8U | magnitude[n];
      magnitude[n] = static_cast<uint32_t>(remainder / kBase);
      remainder %= kBase;
    }
    while (first < magnitude.size() && magnitude[first] == 0) ++first;
    auto digits = std::to_string(remainder);
    if (first < magnitude.size()) digits.insert(0, kDigits - digits.size(), '0');
    text.insert(0, digits);
  }
  return (is_negative ? "-" : "") + text;
}

/// Returns the quotation mark that Python's `repr` chooses for a text.
char quote_for(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  return has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
}

/// Returns a byte, or a character below 128, as it appears in a Python literal.
std::string escaped(unsigned byte, char quote) {
  constexpr const char* kDigits = "0123456789abcdef";
  if (byte == '\n') return "\\n";
  if (byte == '\r') return "\\r";
  if (byte == '\t') return "\\t";
  const auto character = static_cast<char>(byte);
  if (character == '\\' || character == quote) return {'\\', character};
  if (byte >= 0x20 && byte < 0x7f) return {character};
  return {'\\', 'x', kDigits[byte / 16], kDigits[byte % 16]};
}

std::string bytes_text(const Bytes& bytes) {
  const char quote = quote_for(bytes.text);
  std::string text = {'b', quote};
  for (size_t n = 0; n < bytes.text.size(); ++n) {
    unsigned byte = static_cast<unsigned char>(bytes.text[n]);
    const bool is_pair = bytes.is_utf8 && byte >= 0x80 && n + 1 < bytes.text.size();
    if (is_pair) byte = (byte & 0x3U) << 6U | (static_cast<unsigned char>(bytes.text[++n]) & 0x3fU);
    text += escaped(byte, quote);
  }
  return text + quote;
}

/// Returns a text in quotes. Characters beyond ASCII are not escaped.
std::string quoted_text(std::string_view content) {
  const char quote = quote_for(content);
  std::string text = {quote};
  for (const char character : content) {
    const unsigned byte = static_cast<unsigned char>(character);
    text += byte < 0x80 ? escaped(byte, quote) : std::string{character};
  }
  return text + quote;
}

std::string complex_text(const std::complex<double>& value) {
  const auto part = [](double number) {
    const auto text = number_text(number);
    return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
  };
  auto imaginary = part(value.imag()) + "j";
  if (value.real() == 0 && !std::signbit(value.real())) return imaginary;
  return "(" + part(value.real()) + (std::signbit(value.imag()) ? "" : "+") + imaginary + ")";
}

/// Appends the texts of keys to a text of limited length.
class KeyWriter {
 public:
  KeyWriter(const Source& source, uint64_t limit) : source_(source), limit_(limit) {}

  void add(const Value& key, int depth) {
    if (const auto* const text = std::get_if<std::string_view>(&key)) {
      return depth == 0 ? append(*text) : append(quoted_text(*text));
    }
    if (const auto* const sequence = std::get_if<Sequence*>(&key)) return add_sequence(**sequence, depth);
    append(plain_text(key));
  }

  std::string take() { return std::move(text_); }

 private:
  void add_sequence(const Sequence& sequence, int depth) {
    constexpr int kMaxDepth = 32;
    if (depth == kMaxDepth) source_.fail("keys of at most 32 levels of nesting", "a deeper one");
    const bool is_set = sequence.kind == Sequence::Kind::frozenset;
    append(is_set ? "frozenset({" : "(");
    for (size_t n = 0; n < sequence.items.size(); ++n) {
      if (n > 0) append(", ");
      add(sequence.items[n], depth + 1);
    }
    append(is_set ? "})" : sequence.items.size() == 1 ? ",)" : ")");
  }

  std::string plain_text(const Value& key) const {
    if (std::holds_alternative<std::monostate>(key)) return "None";
    if (const auto* const value = std::get_if<bool>(&key)) return *value ? "True" : "False";
    if (const auto* const value = std::get_if<int64_t>(&key)) return std::to_string(*value);
    if (const auto* const value = std::get_if<double>(&key)) return number_text(*value);
    if (const auto* const value = std::get_if<BigInteger>(&key)) {
      constexpr size_t kMaxBytes = 255;  // converting to decimal takes quadratic time
      if (value->bytes.size() > kMaxBytes) source_.fail("integer keys of at most 255 bytes", "a longer one");
      return integer_text(value->bytes);
    }
    if (const auto* const value = std::get_if<Bytes>(&key)) return bytes_text(*value);
    if (const auto* const value = std::get_if<c10::Device>(&key)) return value->str();
    if (const auto* const value = std::get_if<std::complex<double>>(&key)) return complex_text(*value);
    const auto* const global = std::get_if<Global>(&key);
    if (global != nullptr && global->kind == Global::Kind::dtype)
      return c10::str("torch.", dtype_name(&DtypeNames::python, global->dtype));
    source_.fail("keys that Python prints by their value", type_name(key));
  }

  void append(std::string_view text) {
    if (text.size() > limit_ - text_.size())
      source_.fail("names of tensors in proportion to the file", "longer ones");
    text_ += text;
  }

  const Source& source_;
  uint64_t limit_;
  std::string text_;
};

}  // namespace

std::string key_text(const Source& source, const Value& key, uint64_t limit) {
  KeyWriter writer(source, limit);
  writer.add(key, 0);
  return writer.take();
}

}  // namespace attend::checkpoint
