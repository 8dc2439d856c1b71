#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attend::text {

/// A set of byte strings with values, which is searched for those that begin a text.
class Trie {
 public:
  using State = int32_t;
  static constexpr State kRoot = 0, kNone = -1;

  /// Adds a string. A string that is added twice has the last value.
  void add(std::string_view string, int64_t value) {
    State state = kRoot;
    for (const char byte : string) {
      const auto [edge, is_new] = edges_.try_emplace(key(state, byte), static_cast<State>(values_.size()));
      if (is_new) values_.push_back(-1);
      state = edge->second;
    }
    values_[static_cast<size_t>(state)] = value;
  }

  /// Returns the state after a byte; kNone if no string goes on so.
  State next(State state, char byte) const {
    const auto found = edges_.find(key(state, byte));
    return found == edges_.end() ? kNone : found->second;
  }

  /// Returns the state after several bytes.
  State next(State state, std::string_view bytes) const {
    for (const char byte : bytes) {
      if (state == kNone) break;
      state = next(state, byte);
    }
    return state;
  }

  /// Returns the value of the string that ends in a state; -1 if there is none.
  int64_t value(State state) const { return values_[static_cast<size_t>(state)]; }

 private:
  static uint64_t key(State state, char byte) {
    return static_cast<uint64_t>(state) << 8U | static_cast<unsigned char>(byte);
  }

  std::vector<int64_t> values_ = {-1};
  std::unordered_map<uint64_t, State> edges_;
};

}  // namespace attend::text
