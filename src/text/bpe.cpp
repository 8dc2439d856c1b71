#include <c10/util/StringUtil.h>

#include <queue>

#include "core/checks.h"
#include "text/byte_tokens.h"
#include "text/model.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

/// A merge of two tokens into one. Merges of a lower rank come first.
struct Merge {
  uint32_t rank;
  int64_t id;
};

/// The merges by their two tokens.
class Merges {
 public:
  void add(int64_t left, int64_t right, const Merge& merge) {
    merges_.insert_or_assign(key(left, right), merge);
  }

  const Merge* find(int64_t left, int64_t right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

 private:
  static uint64_t key(int64_t left, int64_t right) {
    static_assert(kMaxTokenId < int64_t{1} << 32);
    return static_cast<uint64_t>(left) << 32U | static_cast<uint64_t>(right);
  }

  std::unordered_map<uint64_t, Merge> merges_;
};

/// The symbols of a word while they are merged: a list in which each symbol knows its neighbours.
class Symbols {
 public:
  void add(int64_t id, size_t size) {
    const auto at = static_cast<int32_t>(symbols_.size());
    symbols_.push_back({id, size, at - 1, at + 1});
  }

  /// Merges the pair of the lowest rank, the leftmost among equals, until no pair has a merge. The time is
  /// O(n log n).
  void merge_all(const Merges& merges) {
    if (symbols_.empty()) return;
    symbols_.back().next = kNone;
    for (int32_t at = 0; symbols_[index(at)].next != kNone; ++at) offer(at, merges);
    while (!candidates_.empty()) {
      const auto candidate = candidates_.top();
      candidates_.pop();
      auto& left = symbols_[index(candidate.at)];
      if (left.size == 0 || left.next == kNone) continue;  // the symbol is part of another by now
      auto& right = symbols_[index(left.next)];
      const auto* const merge = merges.find(left.id, right.id);
      if (merge == nullptr || merge->id != candidate.id) continue;  // one of the two has changed
      left.id = candidate.id;
      left.size += std::exchange(right.size, 0);
      left.next = right.next;
      if (left.next != kNone) symbols_[index(left.next)].previous = candidate.at;
      if (left.previous != kNone) offer(left.previous, merges);
      if (left.next != kNone) offer(candidate.at, merges);
    }
  }

  void append_to(std::vector<WordToken>& tokens) const {
    size_t begin = 0;
    for (const auto& symbol : symbols_) {
      if (symbol.size == 0) continue;
      tokens.push_back({symbol.id, begin, begin + symbol.size});
      begin += symbol.size;
    }
  }

 private:
  static constexpr int32_t kNone = -1;
  struct Symbol {
    int64_t id;
    size_t size;  ///< in bytes; 0 for a symbol that is merged into the one before it
    int32_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;  ///< the first symbol of the pair
    int64_t id;
    bool operator<(const Candidate& other) const {  // the top of the queue is the largest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };

  static size_t index(int32_t at) { return static_cast<size_t>(at); }

  /// Queues the pair that begins at a symbol, if it has a merge.
  void offer(int32_t at, const Merges& merges) {
    const auto& left = symbols_[index(at)];
    const auto* const merge = merges.find(left.id, symbols_[index(left.next)].id);
    if (merge != nullptr) candidates_.push({merge->rank, at, merge->id});
  }

  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> candidates_;
};

struct BpeSettings {
  std::optional<std::string> unk_token;
  std::string continuing_prefix, end_suffix;
  bool fuse_unk, byte_fallback, ignore_merges;
};

class Bpe final : public Model {
 public:
  Bpe(Vocabulary vocabulary, Merges merges, BpeSettings settings)
      : Model(std::move(vocabulary)), merges_(std::move(merges)), settings_(std::move(settings)) {
    if (settings_.byte_fallback) bytes_ = ByteTokens(this->vocabulary());
    if (settings_.unk_token) unk_id_ = this->vocabulary().id_of(*settings_.unk_token);
  }

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    if (settings_.ignore_merges) {
      if (const auto id = vocabulary().id_of(word)) return tokens.push_back({*id, 0, word.size()});
    }
    auto symbols = symbols_of(word);
    symbols.merge_all(merges_);
    symbols.append_to(tokens);
  }

 private:
  /// Returns a symbol for each code point. One that is not in the vocabulary becomes its bytes, or else the
  /// unknown token; without such a token it is dropped.
  Symbols symbols_of(std::string_view word) const {
    Symbols symbols;
    size_t unknown = 0;  // the size of the unknown text before the next symbol
    const auto flush = [&] {
      if (unknown > 0) symbols.add(required_unk_id(), std::exchange(unknown, 0));
    };
    std::string written;
    for_each_code_point(word, [&](char32_t, size_t begin, size_t end) {
      auto symbol = word.substr(begin, end - begin);
      const bool is_changed = (begin > 0 && !settings_.continuing_prefix.empty()) ||
                              (end == word.size() && !settings_.end_suffix.empty());
      if (is_changed) {
        written = (begin > 0 ? settings_.continuing_prefix : "") + std::string(symbol) +
                  (end == word.size() ? settings_.end_suffix : "");
        symbol = written;
      }
      if (const auto id = vocabulary().id_of(symbol)) {
        flush();
        symbols.add(*id, end - begin);
      } else if (bytes_.has_all(symbol)) {
        for (const char byte : symbol) symbols.add(bytes_[byte], 1);
      } else if (settings_.unk_token) {
        if (!settings_.fuse_unk) flush();
        unknown += end - begin;
      }
    });
    flush();
    return symbols;
  }

  int64_t required_unk_id() const {
    if (unk_id_) return *unk_id_;
    checks::fail("text::Tokenizer", "model.unk_token", "a token of the vocabulary",
                 c10::str("\"", *settings_.unk_token, "\", which it lacks, and unknown text"));
  }

  Merges merges_;
  BpeSettings settings_;
  ByteTokens bytes_;  ///< no tokens if unknown code points are not split into bytes
  std::optional<int64_t> unk_id_;
};

/// Returns the two tokens of a merge: an array of two strings, or a string with a space between them.
std::optional<std::pair<std::string_view, std::string_view>> merge_of(const json::Value& value) {
  if (const auto* const pair = value.array()) {
    const bool are_strings = pair->size() == 2 && pair->front().string() && pair->back().string();
    if (!are_strings) return {};
    return std::pair<std::string_view, std::string_view>(*pair->front().string(), *pair->back().string());
  }
  if (value.string() == nullptr) return {};
  const std::string_view text = *value.string();
  const auto space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) return {};
  return std::pair(text.substr(0, space), text.substr(space + 1));
}

Merges read_merges(const JsonField& field, const Vocabulary& vocabulary,
                   const std::string& continuing_prefix) {
  Merges merges;
  uint32_t rank = 0;
  for (const auto& value : field.array()) {
    const auto element = [&] { return c10::str("[", rank, "]"); };
    const auto pair = merge_of(value);
    if (!pair) field.fail_in(element(), "two tokens with a space between them", value.type_name());
    const auto& [left, right] = *pair;
    const auto id_of = [&](const std::string& token) {
      const auto id = vocabulary.id_of(token);
      if (!id) field.fail_in(element(), "tokens of the vocabulary", c10::str("\"", token, "\""));
      return *id;
    };
    const auto rest = right.substr(std::min(continuing_prefix.size(), right.size()));
    const int64_t left_id = id_of(std::string(left)), right_id = id_of(std::string(right));
    merges.add(left_id, right_id, {rank, id_of(std::string(left) + std::string(rest))});
    ++rank;
  }
  return merges;
}

}  // namespace

std::unique_ptr<Model> read_bpe(const JsonField& field) {
  if (const auto dropout = field.find("dropout")) {
    if (dropout->number() != 0) dropout->fail("no dropout, which makes tokens random", "a number");
  }
  BpeSettings settings{.unk_token = {},
                       .continuing_prefix = field.string_or("continuing_subword_prefix", ""),
                       .end_suffix = field.string_or("end_of_word_suffix", ""),
                       .fuse_unk = field.boolean_or("fuse_unk", false),
                       .byte_fallback = field.boolean_or("byte_fallback", false),
                       .ignore_merges = field.boolean_or("ignore_merges", false)};
  if (const auto unk_token = field.find("unk_token")) settings.unk_token = unk_token->string();
  auto vocabulary = read_vocabulary(field.at("vocab"));
  auto merges = read_merges(field.at("merges"), vocabulary, settings.continuing_prefix);
  return std::make_unique<Bpe>(std::move(vocabulary), std::move(merges), std::move(settings));
}

}  // namespace attend::text
