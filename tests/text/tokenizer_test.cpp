// Compares tokenizers with what Python's `tokenizers` makes of the same files and texts, as
// tests/record/record_tokenizer_files.py recorded it, and tests the errors for files that ask for what is not
// supported.
#include <attend/text/tokenizer.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>

#include "growth.h"
#include "support.h"

namespace attend::testing {
namespace {

using text::Encoding;
using text::Span;
using text::Tokenizer;

std::string data_file(const std::string& name) {
  return std::string(std::getenv("ATTEND_TEST_DATA")) + "/tokenizer_files/" + name;
}

std::string contents(const std::string& name) {
  std::ifstream file(data_file(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Returns the recorded texts: the length of each in 32 bits, and then its bytes.
std::vector<std::string> recorded_texts() {
  const auto bytes = contents("texts.bin");
  std::vector<std::string> texts;
  for (size_t at = 0; at < bytes.size();) {
    uint32_t size = 0;
    std::memcpy(&size, bytes.data() + at, sizeof size);
    texts.push_back(bytes.substr(at + sizeof size, size));
    at += sizeof size + size;
  }
  return texts;
}

std::string hexadecimal(const std::string& text) {
  std::string digits = "x";
  for (const char byte : text) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return digits;
}

/// Returns the line that Python recorded for a text: ids, offsets in code points, and decoded texts.
std::string line_of(const Tokenizer& tokenizer, const std::string& text) {
  const auto encoding = tokenizer.encode(text);
  std::vector<int64_t> offsets;
  for (const auto& [begin, end] : text::code_point_offsets(text, encoding.offsets)) {
    offsets.insert(offsets.end(), {begin, end});
  }
  return fmt::format("{};{};{};{}", fmt::join(encoding.ids, ","), fmt::join(offsets, ","),
                     hexadecimal(tokenizer.decode(encoding.ids)),
                     hexadecimal(tokenizer.decode(encoding.ids, false)));
}

class TokenizerFamily : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerFamily, AgreesWithPython) {
  const std::string name = GetParam();
  const auto tokenizer = Tokenizer::load(data_file(name + ".json"));
  std::ifstream recorded(data_file(name + ".txt"));
  size_t count = 0;
  for (const auto& text : recorded_texts()) {
    std::string line;
    ASSERT_TRUE(std::getline(recorded, line));
    EXPECT_EQ(line_of(tokenizer, text), line) << text;
    ++count;
  }
  EXPECT_GE(count, 100U);
}

class TokenizerGrowth : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerGrowth, TimeIsLinear) {
  const auto tokenizer = Tokenizer::load(data_file(std::string(GetParam()) + ".json"));
  for (const std::string part : {"hello world, it's 1234 ", "a", " "}) {
    expect_linear(fmt::format("{} {}", GetParam(), part), [&](size_t size) {
      std::string text;
      while (text.size() < size) text += part;
      return [tokenizer, text] { static_cast<void>(tokenizer.encode(text)); };
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerFamily,
                         ::testing::Values("gpt2", "roberta", "llama3", "qwen", "llama2", "mistral", "gemma",
                                           "t5", "xlm_roberta", "bert_uncased", "bert_cased", "word_level"),
                         [](const auto& family) { return std::string(family.param); });

// One family of each model.
INSTANTIATE_TEST_SUITE_P(Families, TokenizerGrowth,
                         ::testing::Values("llama3", "llama2", "t5", "bert_uncased"),
                         [](const auto& family) { return std::string(family.param); });

/// Returns a tokenizer.json of a few words, with further fields.
std::string file_with(const std::string& fields, const std::string& model = R"("type":"WordLevel")") {
  return R"({"model":{)" + model + R"(,"unk_token":"?","vocab":{"?":0,"a":1,"b":2,"ab":3}})" +
         (fields.empty() ? "" : ",") + fields + "}";
}

TEST(Tokenizer, TwoTextsTruncationAndPadding) {
  auto tokenizer = Tokenizer::parse(file_with(
      R"("pre_tokenizer":{"type":"Whitespace"},"post_processor":{"type":"BertProcessing","sep":["b",2],"cls":["?",0]})"));
  const auto pair = tokenizer.encode_pair("a a", "a");
  EXPECT_EQ(pair.ids, (std::vector<int64_t>{0, 1, 1, 2, 1, 2}));
  EXPECT_EQ(pair.token_type_ids, (std::vector<int64_t>{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(pair.special_tokens_mask, (std::vector<int64_t>{1, 0, 0, 1, 0, 1}));
  EXPECT_EQ(pair.offsets, (std::vector<Span>{{0, 0}, {0, 1}, {2, 3}, {0, 0}, {0, 1}, {0, 0}}));
  tokenizer.truncation(text::Truncation{.max_length = 5});
  EXPECT_EQ(tokenizer.encode_pair("a a a", "a").ids, (std::vector<int64_t>{0, 1, 2, 1, 2}));
  tokenizer.padding(text::Padding{.pad_id = 9, .side = text::Side::left});
  const auto batch = tokenizer.encode_batch({"a a", "a"});
  EXPECT_EQ(batch[1].ids, (std::vector<int64_t>{9, 0, 1, 2}));
  EXPECT_EQ(batch[1].attention_mask, (std::vector<int64_t>{0, 1, 1, 1}));
  tokenizer.truncation(text::Truncation{.max_length = 1});
  EXPECT_EQ(
      error_of([&] { static_cast<void>(tokenizer.encode("a")); }),
      "attend::text::Tokenizer: truncation: max_length: expected at least 2, the number of added tokens, "
      "got 1");
}

TEST(Tokenizer, OffsetsOfBytesThatAreNotUtf8) {
  const auto tokenizer = Tokenizer::parse(file_with(R"("pre_tokenizer":{"type":"Whitespace"})"));
  const auto encoding = tokenizer.encode("a \xe2\x82 b");
  EXPECT_EQ(encoding.offsets, (std::vector<Span>{{0, 1}, {2, 4}, {5, 6}}));
  EXPECT_EQ(text::code_point_offsets("a \xe2\x82 b", encoding.offsets),
            (std::vector<Span>{{0, 1}, {2, 3}, {4, 5}}));
}

struct BadFile {
  std::string json, message;
};

std::string bad_bpe(const std::string& fields) { return file_with("", R"("type":"BPE",)" + fields); }

TEST(Tokenizer, ErrorsNameFileAndField) {
  const std::string nested(300, '[');
  const std::vector<BadFile> files = {
      {"", "tokenizer.json: expected a JSON object"},
      {"[]", "tokenizer.json: expected an object, got an array"},
      {nested, "tokenizer.json: expected a JSON object, got more than 256 levels"},
      {"{}", "tokenizer.json: expected the field model, got none"},
      {R"({"model":{"type":"X"}})",
       "tokenizer.json: model.type: expected BPE, Unigram, WordLevel or WordPiece, got X"},
      {R"({"model":{"type":"WordLevel","vocab":{"a":-1},"unk_token":"a"}})",
       R"(tokenizer.json: model.vocab["a"]: expected an integer in 0 ... 4294967295, got a number)"},
      {R"({"model":{"type":"WordLevel","vocab":{"a":1e300},"unk_token":"a"}})",
       R"(tokenizer.json: model.vocab["a"]: expected an integer)"},
      {R"({"model":{"type":"Unigram","vocab":[["a",0]],"unk_id":7}})",
       "tokenizer.json: model.unk_id: expected an integer in 0 ... 0, got a number"},
      {R"({"model":{"type":"Unigram","vocab":[["a"]],"unk_id":0}})",
       "tokenizer.json: model.vocab[0]: expected"},
      {bad_bpe(R"("merges":[],"dropout":0.1)"), "tokenizer.json: model.dropout: expected no dropout"},
      {bad_bpe(R"("merges":["a  b"])"), "tokenizer.json: model.merges[0]: expected two tokens"},
      {bad_bpe(R"("merges":["a b","b a"])"),
       R"(tokenizer.json: model.merges[1]: expected tokens of the vocabulary, got "ba")"},
      {file_with(R"("normalizer":{"type":"X"})"),
       "tokenizer.json: normalizer.type: expected BertNormalizer,"},
      {file_with(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"})"),
       "tokenizer.json: normalizer.precompiled_charsmap: expected a table of SentencePiece"},
      {file_with(R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"X"}]})"),
       "tokenizer.json: pre_tokenizer.pretokenizers[0].type: expected BertPreTokenizer,"},
      {file_with(R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":"("}})"),
       "tokenizer.json: pre_tokenizer.pattern.Regex: expected a regular expression of ICU,"},
      {file_with(
           R"("post_processor":{"type":"TemplateProcessing","special_tokens":{},"pair":[],"single":[{"SpecialToken":{"id":"x","type_id":0}}]})"),
       "tokenizer.json: post_processor.single[0].SpecialToken.id: expected one of the special_tokens, got "
       "\"x\""},
      {file_with(R"("decoder":{"type":"CTC"})"), "tokenizer.json: decoder.type: expected BPEDecoder,"},
      {file_with(R"("added_tokens":[{"id":7,"content":"x"}])"),
       "tokenizer.json: added_tokens[0].id: expected 4, that of the vocabulary or the one that follows it, "
       "got 7"},
      {file_with(
           R"("padding":{"pad_id":0,"pad_type_id":0,"direction":"Right","strategy":{"Fixed":4000000000}})"),
       "tokenizer.json: padding.strategy.Fixed: expected an integer in 0 ... 1048576"},
      {file_with(R"("truncation":{"max_length":1,"strategy":"X"})"),
       "tokenizer.json: truncation.strategy: expected LongestFirst, OnlyFirst or OnlySecond, got X"},
  };
  for (const auto& [json, message] : files) {
    const auto error = error_of([&, &json = json] { static_cast<void>(Tokenizer::parse(json)); });
    EXPECT_TRUE(error.starts_with("attend::text::Tokenizer: " + message)) << json << "\n" << error;
  }
  EXPECT_EQ(error_of([] { static_cast<void>(Tokenizer::load("/nonexistent")); }),
            "attend::text::Tokenizer: /nonexistent: expected a readable file, got No such file or directory");
}

TEST(Tokenizer, HostileRegularExpressionsEnd) {
  const std::string nested = std::string(5000, '(') + "a" + std::string(5000, ')');
  for (const std::string expression : {"(a+)+$", "(a|aa)+$", "(?:a|b|ab)*c", "(a*)*b", "a*+b",
                                       "((a{1,9}){1,9}){1,9}b", "(?:(?:a?){30}){30}b", nested.c_str()}) {
    const auto json =
        file_with(R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":")" +
                  expression + "\"}}");
    const auto before = std::chrono::steady_clock::now();
    try {
      static_cast<void>(Tokenizer::parse(json).encode(std::string(2000, 'a') + "!"));
    } catch (const c10::Error& error) {
      EXPECT_NE(
          std::string(error.what()).find("tokenizer.json: pre_tokenizer.pattern.Regex: expected a regular"),
          std::string::npos)
          << error.what();
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - before;
    EXPECT_LT(time.count(), 1) << expression;
  }
}

}  // namespace
}  // namespace attend::testing
