#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace attend::text {
namespace {

/// Returns the beginning of the white space at the end of text[begin, end).
size_t without_space_at_end(std::string_view text, size_t begin, size_t end) {
  while (begin < end) {
    const auto part = text.substr(begin, end - begin);
    const char32_t c = last_code_point(part);
    if (!is_space(c)) break;
    end -= size_in_utf8(c);
  }
  return end;
}

size_t end_of_space(std::string_view text, size_t begin) {
  for (size_t at = begin; at < text.size(); begin = at) {
    if (!is_space(next_code_point(text, at))) break;
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedTokenRule>& rules, const Vocabulary& vocabulary,
                         const Normalizer* normalizer) {
  int64_t next_id = static_cast<int64_t>(vocabulary.size());
  for (const auto& rule : rules) {
    if (rule.content.empty()) continue;
    auto id = vocabulary_.id_of(rule.content);
    if (!id) id = vocabulary.id_of(rule.content);
    if (!id) id = next_id;
    next_id = std::max(next_id, *id + 1);
    vocabulary_.add(rule.content, *id);
    rules_.insert_or_assign(*id, rule);
  }
  // Of tokens that are the same in the normalized text, the first special one is found, or else the first.
  std::vector<TokenMatcher::Token> given, normalized;
  for (const bool special : {true, false}) {
    for (const auto& listed : rules) {
      if (listed.content.empty()) continue;
      const int64_t id = *vocabulary_.id_of(listed.content);
      const auto& rule = rules_.at(id);
      if (rule.special != special) continue;
      if (!rule.normalized) {
        given.push_back({rule.content, id, rule.single_word});
        continue;
      }
      auto content = AlignedText::of(rule.content);
      if (normalizer != nullptr) normalizer->normalize(content);
      if (!content.text.empty()) normalized.push_back({std::move(content.text), id, rule.single_word});
    }
  }
  given_ = TokenMatcher(std::move(given));
  normalized_ = TokenMatcher(std::move(normalized));
  for (const auto& [id, rule] : rules_) {
    if (rule.special) special_ids_.push_back(id);
  }
  std::ranges::sort(special_ids_);
}

const AddedTokenRule* AddedTokens::find(int64_t id) const {
  const auto found = rules_.find(id);
  return found == rules_.end() ? nullptr : &found->second;
}

bool AddedTokens::is_special(std::string_view content) const {
  const auto id = vocabulary_.id_of(content);
  return id && find(*id)->special;
}

std::vector<AddedTokens::Segment> AddedTokens::segments(std::string_view text,
                                                        const TokenMatcher& matcher) const {
  std::vector<Segment> segments;
  size_t end = 0;
  for (const auto& match : matcher.find(text)) {
    auto range = ByteRange{match.begin, match.end};
    const auto& rule = rules_.at(match.id);
    if (rule.strip_left) range.begin = without_space_at_end(text, std::min(end, range.begin), range.begin);
    if (rule.strip_right) range.end = end_of_space(text, range.end);
    if (end < range.begin) segments.push_back({{end, range.begin}, -1});
    segments.push_back({range, match.id});
    end = range.end;
  }
  if (end < text.size()) segments.push_back({{end, text.size()}, -1});
  return segments;
}

Words AddedTokens::split(std::string_view text, const Normalizer* normalizer) const {
  Words words;
  const auto append = [&](const AlignedText& part, ByteRange range, int64_t id) {
    const size_t begin = words.text.text.size();
    words.text.append(part, range.begin, range.end);
    words.words.push_back({{begin, words.text.text.size()}, id});
  };
  for (const auto& [range, id] : segments(text, given_)) {
    auto part = AlignedText::of(text.substr(range.begin, range.end - range.begin),
                                static_cast<uint32_t>(range.begin));
    if (id >= 0) {
      append(part, {0, part.text.size()}, id);
      continue;
    }
    if (normalizer != nullptr) normalizer->normalize(part);
    for (const auto& inner : segments(part.text, normalized_)) append(part, inner.range, inner.id);
  }
  return words;
}

std::vector<AddedTokenRule> read_added_tokens(const JsonField& field, std::vector<int64_t>& ids) {
  std::vector<AddedTokenRule> rules;
  for (const auto& token : field.elements()) {
    AddedTokenRule rule{.content = token.at("content").string()};
    rule.single_word = token.boolean_or("single_word", false);
    rule.strip_left = token.boolean_or("lstrip", false);
    rule.strip_right = token.boolean_or("rstrip", false);
    rule.special = token.boolean_or("special", false);
    rule.normalized = token.boolean_or("normalized", !rule.special);
    rules.push_back(std::move(rule));
    ids.push_back(token.at("id").index(kMaxTokenId));
  }
  return rules;
}

}  // namespace attend::text
