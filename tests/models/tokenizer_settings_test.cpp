// Compares the settings of the tokenizer with results of Python's tokenizers that
// tests/record/record_tokenizers.py recorded, and tests the settings of sentence encoders.
#include <attend/models/sentence_encoder.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "recorded.h"
#include "support.h"

namespace attend::testing {
namespace {

namespace fs = std::filesystem;
using models::AddedToken;
using models::Bert;
using models::Pooling;
using models::SentenceEncoder;
using models::SentenceEncoderOptions;
using models::TruncationSide;
using models::WordPiece;
using models::WordPieceOptions;

std::string data_path(const std::string& name) {
  return std::string(std::getenv("ATTEND_TEST_DATA")) + "/" + name;
}

/// A folder that exists during the lifetime of this object.
class Folder {
 public:
  explicit Folder(const std::string& name = "settings")
      : path_(fs::temp_directory_path() / c10::str("attend_", name, "_", getpid())) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }

  std::string path() const { return path_.string(); }
  void write(const std::string& name, const std::string& content) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  /// Copies the files of the tiny sentence encoder into the folder.
  void copy_encoder() const {
    fs::remove_all(path_);
    fs::copy(data_path("bert"), path_, fs::copy_options::recursive);
  }

 private:
  fs::path path_;
};

std::vector<std::string> texts_of(const torch::Tensor& bytes) {
  std::vector<std::string> texts(1);
  const auto* const begin = static_cast<const char*>(bytes.const_data_ptr());
  for (const auto* at = begin; at < begin + bytes.numel(); ++at) {
    if (*at == '\xff') {
      texts.emplace_back();
    } else {
      texts.back() += *at;
    }
  }
  return texts;
}

/// Returns the recorded ids of each text.
std::vector<std::vector<int64_t>> ids_of(const StateDict& recorded, const std::string& ids,
                                         const std::string& lengths) {
  const auto all = recorded.tensors[ids].to(torch::kLong), sizes = recorded.tensors[lengths].to(torch::kLong);
  std::vector<std::vector<int64_t>> result;
  const auto* at = all.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < sizes.numel(); ++n) {
    const auto size = sizes.const_data_ptr<int64_t>()[n];
    result.emplace_back(at, at + size);
    at += size;
  }
  return result;
}

TEST(TokenizerSettings, AgreeWithPython) {
  constexpr int64_t kMaxLength = 24;
  const auto recorded = load_safetensors(data_path("tokenizers.safetensors"));
  const auto texts = texts_of(recorded.tensors["texts"]);
  std::set<std::string> cases;
  for (const auto& [key, value] : recorded.metadata) {
    if (const auto slash = key.find('/'); slash != std::string::npos) cases.insert(key.substr(0, slash));
  }
  EXPECT_GE(cases.size(), 28U);
  for (const auto& name : cases) {
    SCOPED_TRACE(name);
    const Folder folder;
    folder.write("vocab.txt", recorded.metadata.at("vocab.txt"));
    for (const char* file : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
      const auto found = recorded.metadata.find(name + "/" + file);
      if (found != recorded.metadata.end()) folder.write(file, found->second);
    }
    const auto tokenizer = models::load_word_piece(folder.path());
    EXPECT_EQ(std::to_string(tokenizer.vocab_size()), recorded.metadata.at(name + "/vocab_size"));
    const auto single = ids_of(recorded, name + "/ids", name + "/lengths");
    const auto pairs = ids_of(recorded, name + "/pair_ids", name + "/pair_lengths");
    ASSERT_EQ(single.size(), texts.size());
    for (size_t n = 0; n < texts.size(); ++n) {
      auto other = texts[n == 0 ? texts.size() - 1 : n - 1];
      if (other.empty()) other = "x";  // Python treats an empty second text as no second text
      EXPECT_EQ(tokenizer.encode(texts[n], kMaxLength).ids, single[n]) << texts[n];
      EXPECT_EQ(tokenizer.encode(texts[n], other, kMaxLength - static_cast<int64_t>(n % 2)).ids, pairs[n])
          << texts[n] << " | " << other;
    }
  }
}

TEST(TokenizerSettings, OptionsAreThoseOfTheFiles) {
  const Folder folder;
  folder.write("vocab.txt", "[UNK]\n<s>\n</s>\nhello\n");
  folder.write("tokenizer_config.json",
               R"({"cls_token": "<s>", "sep_token": "</s>", "mask_token": null, "do_lower_case": false,
                   "strip_accents": true, "truncation_side": "left", "model_max_length": 77})");
  const auto options = models::load_word_piece(folder.path()).options();
  EXPECT_EQ(options.cls_token(), "<s>");
  EXPECT_EQ(options.mask_token(), "");
  EXPECT_EQ(options.do_lower_case(), false);
  EXPECT_EQ(options.strip_accents(), true);
  EXPECT_EQ(options.truncation_side(), TruncationSide::left);
  EXPECT_EQ(options.model_max_length(), 77);
  const WordPiece tokenizer({"[UNK]", "[CLS]", "[SEP]", "a"},
                            WordPieceOptions().added_tokens({AddedToken{"new"}, AddedToken{"[CLS]"}}));
  EXPECT_EQ(tokenizer.vocab_size(), 5);
  EXPECT_EQ(tokenizer.token_to_id("new"), 4);
  EXPECT_EQ(tokenizer.token_to_id("old"), std::nullopt);
  EXPECT_EQ(tokenizer.tokenize("anew[CLS]"), (std::vector<int64_t>{3, 4, 1}));
  EXPECT_EQ(error_of([] {
              WordPiece({"[UNK]", "[CLS]", "[SEP]"}, WordPieceOptions().added_tokens({AddedToken{""}}));
            }),
            "attend::models::WordPiece: added_tokens: expected tokens that are not empty, got an empty one");
}

TEST(TokenizerSettings, UnsupportedOnesAreRefusedByName) {
  const Folder folder;
  folder.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\n");
  const auto error_with = [&](const std::string& config) {
    folder.write("tokenizer_config.json", config);
    const std::string prefix = "attend::models::load_word_piece: tokenizer_config.json: ";
    const auto message = error_of([&] { models::load_word_piece(folder.path()); });
    EXPECT_TRUE(message.starts_with(prefix)) << message;
    return message.substr(std::min(prefix.size(), message.size()));
  };
  EXPECT_EQ(error_with(R"({"tokenizer_class": "RobertaTokenizer"})"),
            "tokenizer_class: expected BertTokenizer or BertTokenizerFast, got RobertaTokenizer");
  EXPECT_EQ(error_with(R"({"do_basic_tokenize": false})"), "do_basic_tokenize: expected true, got false");
  EXPECT_EQ(error_with(R"({"never_split": ["a"]})"),
            "never_split: expected none, got words that are not split");
  EXPECT_EQ(error_with(R"({"split_special_tokens": true})"),
            "split_special_tokens: expected false, got true");
  EXPECT_EQ(error_with(R"({"padding_side": "left"})"), "padding_side: expected right, got left");
  EXPECT_EQ(error_with(R"({"truncation_side": "middle"})"),
            "truncation_side: expected right or left, got middle");
  EXPECT_EQ(error_with(R"({"strip_accents": 1})"), "strip_accents: expected a boolean, got a number");
  EXPECT_EQ(error_with(R"({"cls_token": null})"), "cls_token: expected a token, got null");
  EXPECT_EQ(error_with(R"({"cls_token": 1})"), "cls_token: expected a token, got a number");
  EXPECT_EQ(error_with(R"({"additional_special_tokens": [1]})"),
            "additional_special_tokens: expected tokens, got a number");
  EXPECT_EQ(error_with(R"({"added_tokens_decoder": {"x": {"content": "y"}}})"),
            "added_tokens_decoder: expected tokens by their ids, got the entry \"x\"");
  EXPECT_EQ(error_with(R"({"added_tokens_decoder": {"9": {"content": "y"}}})"),
            "added tokens: expected ids of the vocabulary or those that follow it, with \"y\" at 5, got the "
            "id 9");
  const Folder other("other");
  other.write("tokenizer.json", "{}");
  EXPECT_EQ(error_of([&] { models::load_word_piece(other.path()); }),
            "attend::models::load_word_piece: " + other.path() +
                ": expected vocab.txt, got tokenizer.json alone, which is not supported");
  folder.write("tokenizer_config.json", R"({"sep_token": "</s>"})");
  EXPECT_EQ(error_of([&] { models::load_word_piece(folder.path()); }),
            "attend::models::WordPiece: vocabulary: expected a vocabulary with </s>, got one without it");
}

// ---- sentence encoders

/// Returns the options of the tiny encoder after one of its files is replaced.
SentenceEncoderOptions options_with(const Folder& folder, const std::string& file,
                                    const std::string& content) {
  folder.copy_encoder();
  folder.write(file, content);
  return SentenceEncoder::load(folder.path()).options();
}

TEST(EncoderSettings, TheMaximumLengthIsThatOfTheModel) {
  const Folder folder;
  const auto max_length = [&](const std::string& seq_length, const std::string& tokenizer) {
    folder.copy_encoder();
    fs::remove(folder.path() + "/sentence_bert_config.json");
    if (!seq_length.empty()) folder.write("sentence_bert_config.json", seq_length);
    if (!tokenizer.empty()) folder.write("tokenizer_config.json", tokenizer);
    return SentenceEncoder::load(folder.path()).max_length();
  };
  EXPECT_EQ(max_length("", ""), 48);
  EXPECT_EQ(max_length(R"({"max_seq_length": null})", ""), 48);
  EXPECT_EQ(max_length(R"({"max_seq_length": 40})", R"({"model_max_length": 30})"), 40);
  EXPECT_EQ(max_length("{}", R"({"model_max_length": 30})"), 30);
  EXPECT_EQ(max_length("", R"({"model_max_length": 1000000000000000019884624838656})"), 48);
  EXPECT_EQ(max_length("", R"({"model_max_length": 512})"), 48);
  EXPECT_EQ(max_length("", R"({"model_max_length": null})"), 48);
  EXPECT_EQ(
      error_of([&] { max_length(R"({"max_seq_length": 49})", ""); }),
      "attend::models::SentenceEncoder: max_length: expected 2 ... 48, the maximum of the model, got 49");
  const auto tokenizer = WordPiece::load(data_path("bert/vocab.txt"));
  EXPECT_EQ(SentenceEncoder(tokenizer, models::load_bert(data_path("bert"))).options().max_length(), 48);
}

TEST(EncoderSettings, ModulesMayBeInOtherFolders) {
  const Folder folder;
  folder.copy_encoder();
  for (const char* file : {"config.json", "model.safetensors", "vocab.txt", "sentence_bert_config.json"}) {
    fs::create_directories(folder.path() + "/0_Transformer");
    fs::rename(folder.path() + "/" + file, folder.path() + "/0_Transformer/" + file);
  }
  fs::remove_all(folder.path() + "/1_Pooling");
  folder.write("other/config.json", R"({"pooling_mode": "cls", "include_prompt": true})");
  folder.write("modules.json", R"([{"idx": 0, "path": "0_Transformer", "type": "a.models.Transformer"},
                                   {"idx": 1, "path": "other", "type": "a.models.Pooling"}])");
  auto encoder = SentenceEncoder::load(folder.path());
  EXPECT_EQ(encoder.options().pooling(), Pooling::cls);
  EXPECT_EQ(encoder.options().normalize(), false);
  EXPECT_EQ(encoder.max_length(), 40);
  fs::remove_all(folder.path() + "/other");
  EXPECT_EQ(error_of([&] { SentenceEncoder::load(folder.path()); }),
            "attend::models::SentenceEncoder: " + folder.path() +
                "/other/config.json: expected a readable file, got No such file or directory");
  const auto error_with = [&](const std::string& modules) {
    folder.write("modules.json", modules);
    return error_of([&] { SentenceEncoder::load(folder.path()); });
  };
  EXPECT_EQ(error_with(R"([{"path": "../x", "type": "Transformer.Transformer"}])"),
            "attend::models::SentenceEncoder: modules.json: path: expected a folder below that of the model, "
            "got ../x");
  EXPECT_EQ(error_with(R"([{"path": "/etc", "type": "a.Transformer"}])"),
            "attend::models::SentenceEncoder: modules.json: path: expected a folder below that of the model, "
            "got /etc");
  EXPECT_EQ(error_with(R"([{"path": "", "type": "a.Pooling"}])"),
            "attend::models::SentenceEncoder: modules.json: expected the modules Transformer, Pooling and "
            "Normalize, in this order, got a.Pooling");
  EXPECT_EQ(
      error_with(R"([{"path": "", "type": "a.Transformer"}])"),
      "attend::models::SentenceEncoder: modules.json: expected the modules Transformer and Pooling, got "
      "fewer");
}

TEST(EncoderSettings, PromptsArePutBeforeTexts) {
  const Folder folder;
  folder.copy_encoder();
  folder.write("config_sentence_transformers.json",
               R"({"prompts": {"query": "hello ", "passage": ""}, "default_prompt_name": "query"})");
  auto encoder = SentenceEncoder::load(folder.path());
  auto plain = SentenceEncoder::load(data_path("bert"));
  const auto expected = plain.encode({"hello world"});
  EXPECT_TRUE(same_bits(encoder.encode({"world"}), expected));
  EXPECT_TRUE(same_bits(encoder.encode({"world"}, {}, "query"), expected));
  EXPECT_TRUE(same_bits(encoder.encode({"world"}, {}, "passage"), plain.encode({"world"})));
  EXPECT_EQ(error_of([&] { encoder.encode({"world"}, {}, "title"); }),
            "attend::models::SentenceEncoder: prompt_name: expected one of passage, query, got title");
  EXPECT_EQ(error_of([&] { plain.encode({"world"}, {}, "query"); }),
            "attend::models::SentenceEncoder: prompt_name: expected none, since there are no prompts, got "
            "query");
  folder.write("1_Pooling/config.json", R"({"pooling_mode_mean_tokens": true, "include_prompt": false})");
  EXPECT_EQ(
      error_of([&] { SentenceEncoder::load(folder.path()); }),
      "attend::models::SentenceEncoder: 1_Pooling/config.json: include_prompt: expected true, got false");
  folder.write("config_sentence_transformers.json", R"({"default_prompt_name": "query"})");
  EXPECT_EQ(
      error_of([&] { SentenceEncoder::load(folder.path()); }),
      "attend::models::SentenceEncoder: default_prompt_name: expected none, since there are no prompts, "
      "got query");
  folder.write("config_sentence_transformers.json", R"({"model_type": "SparseEncoder"})");
  EXPECT_EQ(error_of([&] { SentenceEncoder::load(folder.path()); }),
            "attend::models::SentenceEncoder: config_sentence_transformers.json: model_type: expected "
            "SentenceTransformer, got SparseEncoder");
}

TEST(EncoderSettings, TextsMayBeLowerCasedFirst) {
  const Folder folder;
  EXPECT_EQ(options_with(folder, "sentence_bert_config.json", R"({"do_lower_case": true})").do_lower_case(),
            true);
  folder.write("tokenizer_config.json", R"({"do_lower_case": false})");
  auto encoder = SentenceEncoder::load(folder.path());
  auto plain = SentenceEncoder::load(data_path("bert"));
  EXPECT_TRUE(same_bits(encoder.encode({"Hello WORLD"}), plain.encode({"hello world"})));
}

TEST(EncoderSettings, PaddingNeedsNoToken) {
  const Folder folder;
  folder.copy_encoder();
  std::ifstream file(data_path("bert/config.json"));
  std::string config(std::istreambuf_iterator<char>(file), {});
  const std::string field = "\"pad_token_id\": 0";
  config.replace(config.find(field), field.size(), "\"pad_token_id\": null");
  folder.write("config.json", config);
  auto bert = models::load_bert(folder.path());
  EXPECT_EQ(bert->options.pad_token_id(), std::nullopt);
  bert(torch::tensor({{2, 0, 3}})).select(-1, 0).sum().backward();
  EXPECT_GT(bert->word_embeddings->weight.grad()[0].abs().max().item<double>(), 0);
  auto encoder = SentenceEncoder::load(folder.path());
  auto plain = SentenceEncoder::load(data_path("bert"));
  EXPECT_TRUE(same_bits(encoder.encode({"hello world", "the"}), plain.encode({"hello world", "the"})));
}

TEST(EncoderSettings, DecodersAreRefused) {
  const Folder folder;
  folder.copy_encoder();
  for (const char* field : {"is_decoder", "add_cross_attention"}) {
    folder.write("config.json", c10::str("{\"", field, "\": true}"));
    EXPECT_EQ(error_of([&] { models::load_bert(folder.path()); }),
              c10::str("attend::models::load_bert: config.json: ", field, ": expected false, got true"));
  }
}

TEST(EncoderSettings, MissingWeightsListTheFilesOfTheFolder) {
  const Folder folder;
  folder.copy_encoder();
  fs::remove(folder.path() + "/model.safetensors");
  folder.write("tf_model.h5", "");
  EXPECT_EQ(error_of([&] { models::load_bert(folder.path()); }),
            "attend::load_weights: " + folder.path() +
                ": expected model.safetensors or pytorch_model.bin, or the index of either "
                "(model.safetensors.index.json), got \"1_Pooling\", \"config.json\", \"modules.json\", "
                "\"sentence_bert_config.json\", \"tf_model.h5\", \"vocab.txt\"");
}

}  // namespace
}  // namespace attend::testing
