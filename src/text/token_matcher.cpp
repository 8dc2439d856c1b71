#include "text/token_matcher.h"

#include <ranges>
#include <utility>

#include "text/unicode.h"

namespace attend::text {
namespace {

/// Whether text[begin, end) follows or precedes a character of a word.
bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word_character(last_code_point(text.substr(0, begin)))) return true;
  return end < text.size() && is_word_character(next_code_point(text, end));
}

}  // namespace

TokenMatcher::TokenMatcher(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  for (size_t n = 0; n < tokens_.size(); ++n) add(static_cast<int32_t>(n));
  link();
}

void TokenMatcher::add(int32_t token) {
  int32_t state = 0;
  for (const char byte : std::views::reverse(tokens_[static_cast<size_t>(token)].text)) {
    const auto [found, is_new] = edges_.try_emplace(edge(state, byte), static_cast<int32_t>(states_.size()));
    if (is_new) states_.emplace_back();
    state = found->second;
  }
  auto& own = states_[static_cast<size_t>(state)].token;
  if (own < 0) own = token;
}

/// Sets the fallback of each state, in the order of the length of the states.
void TokenMatcher::link() {
  struct Edge {
    int32_t from, to;
    char byte;
  };
  std::vector<std::vector<Edge>> out(states_.size());
  for (const auto& [key, to] : edges_) {
    const auto from = static_cast<int32_t>(key >> 8U);
    out[static_cast<size_t>(from)].push_back({from, to, static_cast<char>(key & 0xffU)});
  }
  std::vector<int32_t> order = {0};
  for (size_t n = 0; n < order.size(); ++n) {
    for (const auto& [from, to, byte] : out[static_cast<size_t>(order[n])]) {
      auto& state = states_[static_cast<size_t>(to)];
      state.fallback = from == 0 ? 0 : next(states_[static_cast<size_t>(from)].fallback, byte);
      if (state.token < 0) state.token = states_[static_cast<size_t>(state.fallback)].token;
      order.push_back(to);
    }
  }
}

int32_t TokenMatcher::next(int32_t state, char byte) const {
  while (true) {
    const auto found = edges_.find(edge(state, byte));
    if (found != edges_.end()) return found->second;
    if (state == 0) return 0;
    state = states_[static_cast<size_t>(state)].fallback;
  }
}

std::vector<TokenMatcher::Match> TokenMatcher::find(std::string_view text) const {
  if (tokens_.empty()) return {};
  // The beginnings of tokens and the tokens, from right to left.
  std::vector<std::pair<size_t, int32_t>> starts;
  int32_t state = 0;
  for (size_t at = text.size(); at-- > 0;) {
    state = next(state, text[at]);
    const int32_t token = states_[static_cast<size_t>(state)].token;
    if (token >= 0) starts.emplace_back(at, token);
  }
  std::vector<Match> matches;
  size_t end = 0;
  for (const auto& [begin, index] : std::views::reverse(starts)) {
    if (begin < end) continue;
    const auto& token = tokens_[static_cast<size_t>(index)];
    end = begin + token.text.size();
    if (!token.single_word || !touches_word(text, begin, end)) matches.push_back({begin, end, token.id});
  }
  return matches;
}

}  // namespace attend::text
