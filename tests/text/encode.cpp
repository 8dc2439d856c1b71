// Prints what a tokenizer makes of the texts of a file: `encode TOKENIZER TEXTS`. The file has the length of
// each text in bytes as a little-endian integer of 32 bits, and then the text. Each line has the ids, the
// offsets in code points and, in hexadecimal, the decoded text with and without special tokens.
#include <attend/text/tokenizer.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

namespace {

std::string hexadecimal(const std::string& text) {
  std::string digits = "x";
  for (const char byte : text) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return digits;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return std::cerr << "usage: encode TOKENIZER TEXTS\n", 2;
  const auto tokenizer = attend::text::Tokenizer::load(arguments[1]);
  std::ifstream file(arguments[2], std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  for (size_t at = 0; at < bytes.size();) {
    uint32_t size = 0;
    std::memcpy(&size, bytes.data() + at, sizeof size);
    const auto text = bytes.substr(at + sizeof size, size);
    at += sizeof size + size;
    const auto encoding = tokenizer.encode(text);
    std::vector<int64_t> offsets;
    for (const auto& [begin, end] : attend::text::code_point_offsets(text, encoding.offsets)) {
      offsets.insert(offsets.end(), {begin, end});
    }
    fmt::print("{};{};{};{}\n", fmt::join(encoding.ids, ","), fmt::join(offsets, ","),
               hexadecimal(tokenizer.decode(encoding.ids)),
               hexadecimal(tokenizer.decode(encoding.ids, false)));
  }
  return 0;
}
