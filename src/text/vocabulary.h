#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "text/json_field.h"

namespace attend::text {

/// The tokens of a model and their ids.
class Vocabulary {
 public:
  /// Adds a token. A token that is added twice has the last id, but both ids have the token.
  void add(std::string_view token, int64_t id);

  std::optional<int64_t> id_of(std::string_view token) const;
  /// Returns the token of an id; nullptr if there is none.
  const std::string* token_of(int64_t id) const;
  /// Returns the number of different tokens.
  size_t size() const { return ids_.size(); }

  /// Calls `use` for each token and its id, in no particular order.
  template <typename F>
  void for_each(const F& use) const {
    for (const auto& [token, id] : ids_) use(token, id);
  }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<int64_t, const std::string*>
      tokens_;  ///< pointers to keys of `ids_`, which stay in place
};

/// Reads an object of ids by token.
Vocabulary read_vocabulary(const JsonField& field);

/// Returns the id of a token that `field` names. Fails if the vocabulary lacks it.
int64_t read_token(const JsonField& field, const Vocabulary& vocabulary);

}  // namespace attend::text
