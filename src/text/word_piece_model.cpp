#include <limits>

#include "text/model.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

class WordPieceModel final : public Model {
 public:
  WordPieceModel(Vocabulary vocabulary, const WordPieceSettings& settings)
      : Model(std::move(vocabulary)), settings_(settings) {
    this->vocabulary().for_each([&](const std::string& token, int64_t id) {
      if (!token.empty()) pieces_.add(token, id);
    });
    continuing_ = pieces_.next(Trie::kRoot, settings_.continuing_prefix);
  }

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    const size_t before = tokens.size();
    size_t begin = num_code_points(word) > settings_.max_length ? kUnknown : 0;
    while (begin < word.size()) begin = append_piece(word, begin, tokens);
    if (begin != kUnknown) return;
    tokens.resize(before);
    tokens.push_back({settings_.unk_id, 0, word.size()});
  }

 private:
  static constexpr size_t kUnknown = std::numeric_limits<size_t>::max();

  /// Appends the longest piece that begins at a byte, and returns its end; kUnknown if there is none.
  size_t append_piece(std::string_view word, size_t begin, std::vector<WordToken>& tokens) const {
    auto state = begin == 0 ? Trie::kRoot : continuing_;
    WordToken longest{-1, begin, kUnknown};
    for (size_t at = begin; at < word.size() && state != Trie::kNone; ++at) {
      state = pieces_.next(state, word[at]);
      if (state == Trie::kNone || pieces_.value(state) < 0) continue;
      longest.id = pieces_.value(state);
      longest.end = at + 1;
    }
    if (longest.end != kUnknown) tokens.push_back(longest);
    return longest.end;
  }

  WordPieceSettings settings_;
  Trie pieces_;
  Trie::State continuing_;  ///< the state after the prefix of pieces that are not the first
};

}  // namespace

std::unique_ptr<Model> make_word_piece(Vocabulary vocabulary, const WordPieceSettings& settings) {
  return std::make_unique<WordPieceModel>(std::move(vocabulary), settings);
}

std::unique_ptr<Model> read_word_piece(const JsonField& field) {
  auto vocabulary = read_vocabulary(field.at("vocab"));
  WordPieceSettings settings{read_token(field.at("unk_token"), vocabulary)};
  settings.continuing_prefix = field.at("continuing_subword_prefix").string();
  settings.max_length =
      static_cast<size_t>(field.at("max_input_chars_per_word").index(std::numeric_limits<int64_t>::max()));
  return make_word_piece(std::move(vocabulary), settings);
}

}  // namespace attend::text
