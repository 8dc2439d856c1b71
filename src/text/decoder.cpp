#include "text/decoder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <utility>

#include "text/byte_level.h"
#include "text/metaspace.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

using Tokens = std::vector<std::string>;

/// A decoder that is a function of all tokens.
class SimpleDecoder final : public Decoder {
 public:
  using Function = std::function<void(Tokens&)>;
  explicit SimpleDecoder(Function function) : function_(std::move(function)) {}
  void decode(Tokens& tokens) const override { function_(tokens); }

 private:
  Function function_;
};

std::unique_ptr<Decoder> decoder(SimpleDecoder::Function function) {
  return std::make_unique<SimpleDecoder>(std::move(function));
}

std::string joined(const Tokens& tokens) {
  std::string text;
  for (const auto& token : tokens) text += token;
  return text;
}

std::string replaced(const std::string& text, const Pattern& pattern, std::string_view content) {
  std::string result;
  size_t end = 0;
  for (const auto& match : pattern.find(text)) {
    result.append(text, end, match.begin - end).append(content);
    end = match.end;
  }
  return result.append(text, end);
}

/// Joins byte-level tokens into text, in which bytes that are not UTF-8 are U+FFFD. A token with other
/// characters stands for itself.
void from_byte_level(Tokens& tokens) {
  std::string bytes;
  for (const auto& token : tokens) bytes += bytes_of(token).value_or(token);
  tokens = {with_replacements(bytes)};
}

/// Returns the byte of a token such as <0x0A>; -1 for other tokens.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? static_cast<int>(byte) : -1;
}

/// Joins the tokens of bytes that follow each other into text. Each byte is U+FFFD if they are not UTF-8.
void from_bytes(Tokens& tokens) {
  Tokens result;
  std::string bytes;
  const auto flush = [&] {
    if (is_utf8(bytes)) {
      if (!bytes.empty()) result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), utf8(kReplacementCharacter));
    }
    bytes.clear();
  };
  for (auto& token : tokens) {
    const int byte = byte_of(token);
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    result.push_back(std::move(token));
  }
  flush();
  tokens = std::move(result);
}

void from_metaspace(Tokens& tokens, const Metaspace& metaspace) {
  const auto mark = make_string_pattern(metaspace.replacement);
  for (size_t n = 0; n < tokens.size(); ++n) {
    const bool is_dropped = n == 0 && metaspace.prepend != Metaspace::Prepend::never;
    tokens[n] = replaced(tokens[n], *mark, is_dropped ? "" : " ");
  }
}

/// Removes up to `left` and `right` occurrences of a string from the ends of a token.
void strip(std::string& token, const std::string& content, int64_t left, int64_t right) {
  std::string_view rest = token;
  for (; left > 0 && rest.starts_with(content); --left) rest.remove_prefix(content.size());
  for (; right > 0 && rest.ends_with(content); --right) rest.remove_suffix(content.size());
  token = std::string(rest);
}

/// Removes the spaces that English does without, as Python's `tokenizers` does.
void clean_up(std::string& text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kRules = {{{" .", "."},
                                                                                     {" ?", "?"},
                                                                                     {" !", "!"},
                                                                                     {" ,", ","},
                                                                                     {" ' ", "'"},
                                                                                     {" n't", "n't"},
                                                                                     {" 'm", "'m"},
                                                                                     {" do not", " don't"},
                                                                                     {" 's", "'s"},
                                                                                     {" 've", "'ve"},
                                                                                     {" 're", "'re"}}};
  for (const auto& [from, to] : kRules) text = replaced(text, *make_string_pattern(std::string(from)), to);
}

std::unique_ptr<Decoder> read_bpe_decoder(const JsonField& field) {
  const auto& suffix = field.at("suffix");
  if (suffix.string().empty()) suffix.fail("a string that is not empty", "an empty string");
  return decoder([pattern = make_string_pattern(suffix.string())](Tokens& tokens) {
    for (size_t n = 0; n < tokens.size(); ++n) {
      tokens[n] = replaced(tokens[n], *pattern, n + 1 == tokens.size() ? "" : " ");
    }
  });
}

std::unique_ptr<Decoder> read_decoder_sequence(const JsonField& field) {
  std::vector<std::shared_ptr<const Decoder>> steps;
  for (const auto& step : field.at("decoders").elements()) steps.push_back(read_decoder(step));
  return decoder([steps = std::move(steps)](Tokens& tokens) {
    for (const auto& step : steps) step->decode(tokens);
  });
}

std::unique_ptr<Decoder> read_strip(const JsonField& field) {
  const auto content = utf8(field.at("content").code_point());
  const auto left = field.at("start").index(kMaxTokenId), right = field.at("stop").index(kMaxTokenId);
  return decoder([=](Tokens& tokens) {
    for (auto& token : tokens) strip(token, content, left, right);
  });
}

}  // namespace

std::unique_ptr<Decoder> make_word_piece_decoder(std::string prefix, bool cleanup) {
  return decoder([prefix = std::move(prefix), cleanup](Tokens& tokens) {
    for (size_t n = 0; n < tokens.size(); ++n) {
      auto& token = tokens[n];
      if (n > 0 && token.starts_with(prefix)) {
        token.erase(0, prefix.size());
      } else if (n > 0) {
        token.insert(0, " ");
      }
      if (cleanup) clean_up(token);
    }
  });
}

std::unique_ptr<Decoder> read_decoder(const JsonField& field) {
  const auto& type = field.type();
  if (type == "Sequence") return read_decoder_sequence(field);
  if (type == "ByteLevel") return decoder(from_byte_level);
  if (type == "ByteFallback") return decoder(from_bytes);
  if (type == "Fuse") return decoder([](Tokens& tokens) { tokens = {joined(tokens)}; });
  if (type == "Strip") return read_strip(field);
  if (type == "BPEDecoder") return read_bpe_decoder(field);
  if (type == "WordPiece") {
    return make_word_piece_decoder(field.at("prefix").string(), field.at("cleanup").boolean());
  }
  if (type == "Metaspace") {
    return decoder(
        [metaspace = read_metaspace(field)](Tokens& tokens) { from_metaspace(tokens, metaspace); });
  }
  if (type == "Replace") {
    return decoder([pattern = read_pattern(field.at("pattern")),
                    content = field.at("content").string()](Tokens& tokens) {
      for (auto& token : tokens) token = replaced(token, *pattern, content);
    });
  }
  field.fail_type(
      "BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip or WordPiece");
}

}  // namespace attend::text
