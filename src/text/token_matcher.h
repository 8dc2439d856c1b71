#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attend::text {

/// Finds tokens in texts, from left to right and without overlaps. Of the tokens that begin at the same
/// place, the longest is found, and of equal tokens the first (Aho, Corasick 1975). The time is linear in the
/// length of the text, whatever the tokens are.
class TokenMatcher {
 public:
  struct Token {
    std::string text;  ///< not empty
    int64_t id;
    bool single_word;  ///< whether the token is ignored where it touches a character of a word
  };
  struct Match {
    size_t begin, end;  ///< in bytes
    int64_t id;
  };

  TokenMatcher() = default;
  explicit TokenMatcher(std::vector<Token> tokens);

  std::vector<Match> find(std::string_view text) const;

 private:
  /// A state stands for a suffix of a token. The automaton reads a text from its end, so that its state
  /// determines the longest token that begins at each place.
  struct State {
    /// The state of the longest prefix of this suffix that is also a suffix of a token.
    int32_t fallback = 0;
    int32_t token = -1;  ///< the longest token that is a prefix of the suffix; -1 if there is none
  };

  static uint64_t edge(int32_t state, char byte) {
    return static_cast<uint64_t>(state) << 8U | static_cast<unsigned char>(byte);
  }
  void add(int32_t token);
  void link();
  int32_t next(int32_t state, char byte) const;

  std::vector<Token> tokens_;
  std::vector<State> states_ = {State()};
  std::unordered_map<uint64_t, int32_t> edges_;
};

}  // namespace attend::text
