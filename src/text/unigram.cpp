#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/byte_tokens.h"
#include "text/model.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

/// Returns a score as Python's `tokenizers` reads it from its shortest decimal form: the integer of its
/// digits is rounded, and then scaled by a power of ten and rounded again. The last bit decides between paths
/// whose scores are the same sum in another order.
double rounded_twice(double score) {
  std::array<char, 32> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), score, std::chars_format::scientific).ptr;
  const std::string_view written(text.data(), static_cast<size_t>(end - text.data()));
  const auto mark = written.find('e');
  if (mark == std::string_view::npos) return score;
  uint64_t digits = 0;
  int num_decimals = 0;
  bool is_decimal = false;
  for (const char c : written.substr(0, mark)) {
    if (c >= '0' && c <= '9') {
      digits = 10 * digits + static_cast<uint64_t>(c - '0');
      num_decimals += is_decimal ? 1 : 0;
    }
    is_decimal = is_decimal || c == '.';
  }
  const auto* first = written.data() + mark + 1;
  int exponent = 0;
  std::from_chars(*first == '+' ? first + 1 : first, end, exponent);
  exponent -= num_decimals;
  constexpr int kMaxPower = 300;  // beyond, a power of ten or the result is no longer a normal number
  if (std::abs(exponent) > kMaxPower) return score;
  const double power = std::pow(10.0, std::abs(exponent));
  const auto integer = static_cast<double>(digits);
  return std::copysign(exponent < 0 ? integer / power : integer * power, score);
}

class Unigram final : public Model {
 public:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, int64_t unk_id, bool byte_fallback)
      : Model(std::move(vocabulary)), scores_(std::move(scores)), unk_id_(unk_id) {
    constexpr double kUnknownPenalty = 10;
    unk_score_ = std::ranges::min(scores_) - kUnknownPenalty;
    this->vocabulary().for_each([&](const std::string& piece, int64_t id) {
      if (!piece.empty()) pieces_.add(piece, id);
    });
    if (byte_fallback) bytes_ = ByteTokens(this->vocabulary());
  }

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    const auto best = best_paths(word);
    const size_t first = tokens.size();
    // Unknown parts that follow each other are one part.
    for (size_t end = word.size(); end > 0;) {
      const auto& [id, begin, score] = best[end];
      const bool is_joined = id == unk_id_ && tokens.size() > first && tokens.back().id == unk_id_;
      if (is_joined) {
        tokens.back().begin = begin;
      } else {
        tokens.push_back({id, begin, end});
      }
      end = begin;
    }
    std::reverse(tokens.begin() + static_cast<std::ptrdiff_t>(first), tokens.end());
    resolve_unknown(word, first, tokens);
  }

 private:
  /// The best path that ends at a byte: its last piece and its score. `id` is negative if there is no path.
  struct Path {
    int64_t id = -1;
    size_t begin = 0;
    double score = 0;
  };

  /// Returns the best path to the end of each code point (Viterbi 1967).
  std::vector<Path> best_paths(std::string_view word) const {
    std::vector<Path> best(word.size() + 1);
    for_each_code_point(word, [&](char32_t, size_t begin, size_t next) {
      const double score = best[begin].score;
      const auto offer = [&](int64_t id, size_t end, double total) {
        if (best[end].id < 0 || total > best[end].score) best[end] = {id, begin, total};
      };
      bool has_one_code_point = false;
      auto state = Trie::kRoot;
      for (size_t at = begin; at < word.size(); ++at) {
        state = pieces_.next(state, word[at]);
        if (state == Trie::kNone) break;
        const int64_t id = pieces_.value(state);
        if (id < 0) continue;
        offer(id, at + 1, scores_[static_cast<size_t>(id)] + score);
        has_one_code_point = has_one_code_point || at + 1 == next;
      }
      if (!has_one_code_point) offer(unk_id_, next, unk_score_ + score);
    });
    return best;
  }

  /// Replaces unknown parts from `first` on by the tokens of their bytes, if there are such tokens. A part
  /// that was joined may be a token itself.
  void resolve_unknown(std::string_view word, size_t first, std::vector<WordToken>& tokens) const {
    std::vector<WordToken> resolved;
    for (auto token = tokens.begin() + static_cast<std::ptrdiff_t>(first); token != tokens.end(); ++token) {
      const auto part = word.substr(token->begin, token->end - token->begin);
      const auto known = token->id == unk_id_ ? vocabulary().id_of(part) : token->id;
      if (known || !bytes_.has_all(part)) {
        resolved.push_back({known.value_or(unk_id_), token->begin, token->end});
        continue;
      }
      for (const char byte : part) resolved.push_back({bytes_[byte], token->begin, token->end});
    }
    tokens.resize(first);
    tokens.insert(tokens.end(), resolved.begin(), resolved.end());
  }

  std::vector<double> scores_;
  int64_t unk_id_;
  double unk_score_ = 0;
  Trie pieces_;
  ByteTokens bytes_;  ///< no tokens if unknown parts are not split into bytes
};

}  // namespace

std::unique_ptr<Model> read_unigram(const JsonField& field) {
  const auto pieces = field.at("vocab");
  Vocabulary vocabulary;
  std::vector<double> scores;
  for (const auto& piece : pieces.array()) {
    const auto index = scores.size();
    const auto element = c10::str("[", index, "]");
    const bool is_pair =
        piece.array() != nullptr && piece.array()->size() == 2 && piece.array()->front().string() != nullptr;
    if (!is_pair) pieces.fail_in(element, "an array of a piece and its score", piece.type_name());
    const double score = JsonField(piece.array()->back(), pieces.path() + element + "[1]").number();
    vocabulary.add(*piece.array()->front().string(), static_cast<int64_t>(index));
    scores.push_back(rounded_twice(score));
  }
  if (scores.empty()) pieces.fail("at least one piece", "none");
  const auto unk_id = field.at("unk_id").index(static_cast<int64_t>(scores.size()) - 1);
  const bool byte_fallback = field.boolean_or("byte_fallback", false);
  return std::make_unique<Unigram>(std::move(vocabulary), std::move(scores), unk_id, byte_fallback);
}

}  // namespace attend::text
