#include "text/vocabulary.h"

#include <c10/util/StringUtil.h>

namespace attend::text {

void Vocabulary::add(std::string_view token, int64_t id) {
  const auto& entry = *ids_.insert_or_assign(std::string(token), id).first;
  tokens_.insert_or_assign(id, &entry.first);
}

std::optional<int64_t> Vocabulary::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Vocabulary::token_of(int64_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : found->second;
}

Vocabulary read_vocabulary(const JsonField& field) {
  Vocabulary vocabulary;
  for (const auto& [token, value] : field.object()) {
    const auto id = index_of(value, kMaxTokenId);
    if (!id) {
      field.fail_in(c10::str("[\"", token, "\"]"), c10::str("an integer in 0 ... ", kMaxTokenId),
                    value.type_name());
    }
    vocabulary.add(token, *id);
  }
  return vocabulary;
}

int64_t read_token(const JsonField& field, const Vocabulary& vocabulary) {
  const auto id = vocabulary.id_of(field.string());
  if (!id) field.fail("a token of the vocabulary", c10::str("\"", field.string(), "\""));
  return *id;
}

}  // namespace attend::text
