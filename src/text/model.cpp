#include "text/model.h"

#include <c10/util/StringUtil.h>

namespace attend::text {
namespace {

/// A model whose tokens are whole words.
class WordLevel final : public Model {
 public:
  WordLevel(Vocabulary vocabulary, int64_t unk_id) : Model(std::move(vocabulary)), unk_id_(unk_id) {}

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    tokens.push_back({vocabulary().id_of(word).value_or(unk_id_), 0, word.size()});
  }

 private:
  int64_t unk_id_;
};

/// Returns the kind of a model, which files from before the field `type` don't state.
std::string model_type(const JsonField& field) {
  if (field.find("type")) return field.type();
  if (field.find("merges")) return "BPE";
  if (field.find("unk_id")) return "Unigram";
  return field.find("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

}  // namespace

std::unique_ptr<Model> read_model(const JsonField& field) {
  const auto type = model_type(field);
  if (type == "BPE") return read_bpe(field);
  if (type == "Unigram") return read_unigram(field);
  if (type == "WordPiece") return read_word_piece(field);
  if (type == "WordLevel") {
    auto vocabulary = read_vocabulary(field.at("vocab"));
    const int64_t unk_id = read_token(field.at("unk_token"), vocabulary);
    return std::make_unique<WordLevel>(std::move(vocabulary), unk_id);
  }
  field.fail_type("BPE, Unigram, WordLevel or WordPiece");
}

}  // namespace attend::text
