#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attend::models {

/// Finds tokens in texts: at each place the longest one, from left to right, without overlaps (Aho, Corasick
/// 1975). The time is linear in the length of the text, whatever the tokens are.
class TokenMatcher {
 public:
  struct Token {
    std::string text;  ///< not empty
    int64_t id;
    bool single_word;  ///< whether it is ignored where it touches a character of a word
  };
  struct Match {
    size_t begin, end;  ///< in bytes
    int64_t id;
  };

  explicit TokenMatcher(std::vector<Token> tokens);

  std::vector<Match> find(std::string_view text) const;

 private:
  /// A state is a suffix of a token: the machine reads a text from its end, so that it knows the longest
  /// token that begins at each place.
  struct State {
    int32_t fallback = 0;  ///< the longest shorter suffix that is a state
    int32_t token = -1;    ///< the longest token that the state begins with; -1: none
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

}  // namespace attend::models
