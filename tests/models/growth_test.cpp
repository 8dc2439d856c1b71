// Tests that the time of every reader and of the tokenizer is linear in the size of the input.
#include "growth.h"

#include <attend/checkpoint.h>
#include <attend/models/word_piece.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "checkpoint_files.h"
#include "support.h"

namespace attend::testing {
namespace {

namespace fs = std::filesystem;
using models::AddedToken;
using models::WordPiece;
using models::WordPieceOptions;

std::string repeated(const std::string& part, size_t size) {
  std::string text;
  while (text.size() < size) text += part;
  return text;
}

WordPiece tokenizer(const WordPieceOptions& options = {}) {
  std::vector<std::string> vocabulary = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
                                         "a",     "##a",   "b",     "##b",   "!"};
  for (const size_t length : {2, 10, 50, 98}) vocabulary.push_back("##" + std::string(length, 'a'));
  return WordPiece(std::move(vocabulary), options);
}

void expect_linear_text(const std::string& name, const std::function<std::string(size_t)>& text,
                        const WordPieceOptions& options = {}) {
  const auto tokens = std::make_shared<WordPiece>(tokenizer(options));
  expect_linear(name, [&](size_t size) {
    return [tokens, input = text(size)] { static_cast<void>(tokens->encode(input)); };
  });
}

TEST(Growth, Tokenizer) {
  const auto of = [](const std::string& part) {
    return [part](size_t size) { return repeated(part, size); };
  };
  const auto alone = [](char first, const std::string& part) {
    return [first, part](size_t size) { return first + repeated(part, size); };
  };
  expect_linear_text("special tokens", of("[SEP] "));
  expect_linear_text("special tokens without spaces", of("[SEP][MASK]"));
  expect_linear_text("one special token at the end",
                     [](size_t size) { return repeated("a ", size) + "[SEP]"; });
  expect_linear_text("beginnings of special tokens", of("[SE"));
  expect_linear_text("brackets", of("["));
  expect_linear_text("words", of("aab ba "));
  expect_linear_text("words of 100 letters", of(std::string(99, 'a') + "b "));
  expect_linear_text("unknown words of 100 letters", of(std::string(99, 'a') + "c "));
  expect_linear_text("one word", of("a"));
  expect_linear_text("unknown characters", of("\U0001f600"));
  expect_linear_text("unknown words of 100 characters", of(repeated("\U0001f600", 400) + " "));
  expect_linear_text("Chinese", of("中"));
  expect_linear_text("punctuation", of("!?"));
  expect_linear_text("white space", of(" \t\n\u3000"));
  expect_linear_text("control characters", of(std::string("\0\x01", 2)));
  expect_linear_text("no UTF-8", of("\xff\xc3"));
  expect_linear_text("accents", alone('a', "\u0301\u0323"));
  expect_linear_text("marks in an order that is not canonical", alone('a', "\U0001d165\u302e"));
  expect_linear_text("composed letters", of("\u01d5\u1e69"));
  expect_linear_text("cased", of("aA "), WordPieceOptions().do_lower_case(false));
  const auto with = [](std::vector<AddedToken> tokens) {
    return WordPieceOptions().added_tokens(std::move(tokens));
  };
  expect_linear_text("added tokens", of("<x> <y>"), with({{"<x>"}, {"<y>", true}, {"<xx>"}}));
  expect_linear_text("an added token within others", of("ab"),
                     with({{"ab", true}, {"ba", true}, {"aba", true}}));
  expect_linear_text("a long added token", of("a"),
                     with({{std::string(5000, 'a') + "b"}, {std::string(3000, 'a')}}));
  expect_linear_text("single words", of("ab"), with({{"ab", false, true}, {"b", false, true}}));
}

TEST(Growth, TwoTexts) {
  const auto tokens = std::make_shared<WordPiece>(tokenizer());
  expect_linear("two texts", [&](size_t size) {
    return [tokens, text = repeated("a ", size / 2)] { static_cast<void>(tokens->encode(text, text, 300)); };
  });
}

class GrowthInFolder : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name = "") const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path(name), std::ios::binary) << content;
  }

 private:
  fs::path folder_ = fs::temp_directory_path() / c10::str("attend_growth_", getpid());
};

/// Returns the joined texts entry(0), entry(1), ..., about `size` bytes in total.
std::string entries(size_t size, const std::string& between,
                    const std::function<std::string(size_t)>& entry) {
  std::string text;
  for (size_t n = 0; text.size() < size; ++n) text += (n == 0 ? "" : between) + entry(n);
  return text;
}

TEST_F(GrowthInFolder, Vocabulary) {
  const std::string special = "[UNK]\n[CLS]\n[SEP]\n";
  const auto load = [&](const std::string& vocabulary) {
    write("vocab.txt", vocabulary);
    return [this] { static_cast<void>(WordPiece::load(path("vocab.txt"))); };
  };
  expect_linear("vocabulary", [&](size_t size) {
    return load(special + entries(size, "\n", [](size_t n) { return c10::str("token", n); }));
  });
  expect_linear("vocabulary of empty lines",
                [&](size_t size) { return load(special + std::string(size, '\n')); });
  expect_linear("vocabulary of one line",
                [&](size_t size) { return load(special + std::string(size, 'a')); });
}

TEST_F(GrowthInFolder, TokenizerConfig) {
  write("vocab.txt", "[UNK]\n[CLS]\n[SEP]\n");
  const auto load = [&](const std::string& config) {
    write("tokenizer_config.json", config);
    return [this] { static_cast<void>(models::load_word_piece(path())); };
  };
  expect_linear("added tokens", [&](size_t size) {
    return load(R"({"added_tokens_decoder": {)" +
                entries(size, ",",
                        [](size_t n) {
                          return c10::str("\"", n + 3, R"(": {"content": "<token)", n,
                                          R"(>", "normalized": false})");
                        }) +
                "}}");
  });
  expect_linear("special tokens", [&](size_t size) {
    return load(R"({"additional_special_tokens": [)" +
                entries(size, ",", [](size_t n) { return c10::str("\"<token", n, ">\""); }) + "]}");
  });
  expect_linear("a long token", [&](size_t size) {
    return load(c10::str(R"({"additional_special_tokens": [")", std::string(size, 'x'), "\"]}"));
  });
  expect_linear("unknown fields", [&](size_t size) {
    const auto fields =
        entries(size, ",", [](size_t n) { return c10::str("\"field", n, "\": [[1.5], {}]"); });
    return load(c10::str("{", fields, "}"));
  });
}

std::string safetensors_entry(size_t n) {
  return c10::str("\"tensor", n, R"(":{"dtype":"U8","shape":[1],"data_offsets":[)", n, ",", n + 1, "]}");
}

TEST_F(GrowthInFolder, Safetensors) {
  const auto parse = [](const std::string& header, size_t data) {
    const auto bytes = bytes_of(file_of(header, std::string(data, 'x')));
    return [bytes] { static_cast<void>(parse_safetensors(bytes)); };
  };
  expect_linear("safetensors", [&](size_t size) {
    size_t count = 0;
    const auto header = entries(size, ",", [&](size_t n) { return count = n + 1, safetensors_entry(n); });
    return parse("{" + header + "}", count);
  });
  expect_linear("metadata", [&](size_t size) {
    return parse(R"({"__metadata__":{)" +
                     entries(size, ",", [](size_t n) { return c10::str("\"", n, R"(":"v")"); }) + "}}",
                 0);
  });
  expect_linear("a long name", [&](size_t size) {
    return parse("{\"" + std::string(size, 'n') + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0);
  });
  expect_linear("many dimensions", [&](size_t size) {
    return parse(R"({"a":{"dtype":"U8","shape":[)" +
                     entries(size, ",", [](size_t) { return std::string("1"); }) +
                     R"(],"data_offsets":[0,1]}})",
                 1);
  });
  expect_linear("white space",
                [&](size_t size) { return parse(c10::str("{", std::string(size, ' '), "}"), 0); });
  expect_linear("saving", [&](size_t size) {
    StateDict saved;
    for (size_t n = 0; n < size / 64; ++n) saved.tensors.insert(c10::str("tensor", n), torch::ones(1));
    return [this, saved] { save_safetensors(saved, path("saved")); };
  });
  expect_linear("shards", [&](size_t size) {
    size_t count = 0;
    const auto header = entries(size, ",", [&](size_t n) { return count = n + 1, safetensors_entry(n); });
    write("s.safetensors", file_of("{" + header + "}", std::string(count, 'x')));
    std::string map;
    for (size_t n = 0; n < count; ++n)
      map += c10::str(n == 0 ? "" : ",", "\"tensor", n, R"(":"s.safetensors")");
    write("model.safetensors.index.json", R"({"weight_map":{)" + map + "}}");
    return [this] { static_cast<void>(load_weights(path())); };
  });
}

/// Returns a function that reads a pickle, which may be refused; its time is measured in both cases.
std::function<void()> parse_pickle(const std::string& pickle) {
  const auto bytes = bytes_of(archive_of(pickle));
  return [bytes] {
    try {
      static_cast<void>(parse_pytorch(bytes));
    } catch (const c10::Error&) {
    }
  };
}

std::string pickled(const std::string& name) {
  return std::string("\x8c") + static_cast<char>(name.size()) + name;
}

TEST(Growth, Pickles) {
  const auto of = [](const std::string& before, const std::string& part, const std::string& after) {
    return [=](size_t size) { return parse_pickle(before + repeated(part, size) + after); };
  };
  expect_linear("numbers", of("](", "K\x01", "e."));
  expect_linear("appended numbers", of("]",
                                       "K\x01"
                                       "a",
                                       "."));
  expect_linear("a tuple of numbers", of("(", "K\x01", "t."));
  expect_linear("lists in lists", [](size_t size) {
    return parse_pickle(c10::str("}K\x01", std::string(size, ']'), std::string(size - 1, 'a'), "s."));
  });
  expect_linear("tuples in tuples", of("K\x01", "\x85", "."));
  expect_linear("dictionaries", of("](", "}", "e."));
  expect_linear("memo", of("]", std::string("\x94") + "h" + std::string(1, '\0') + "0", "."));
  expect_linear("marks", of("", "(", "."));
  expect_linear("long text", [](size_t size) {
    return parse_pickle(
        c10::str("X", little_endian(static_cast<uint32_t>(size)), std::string(size, 'x'), "."));
  });
  expect_linear("a long integer as a key", [](size_t size) {
    return parse_pickle("}\x8b" + little_endian(static_cast<uint32_t>(size)) + std::string(size, 'x') +
                        "Ns.");
  });
  expect_linear("one list many times", of("}K\x01](]q\x01", "h\x01", "es."));
  expect_linear("ordered dictionaries", of("](", "ccollections\nOrderedDict\n)R", "e."));
  expect_linear("ordered dictionaries of one list",
                of("](](]NN\x86"
                   "a\x94",
                   std::string("ccollections\nOrderedDict\n") + "h" + std::string(1, '\0') + "\x85R", "ee."));
  expect_linear("bytes", of("](", "c_codecs\nencode\n" + pickled("x") + pickled("latin1") + "\x86R", "e."));
}

/// Returns a file in the format before PyTorch 1.6 whose dictionary has `count` storages and tensors.
std::string legacy_file(size_t count) {
  std::string object = "}(", keys = "](", storages;
  for (size_t n = 0; n < count; ++n) {
    const auto key = pickled(std::to_string(n));
    object += key + "ctorch._utils\n_rebuild_tensor_v2\n((" + pickled("storage") + "ctorch\nFloatStorage\n" +
              key + pickled("cpu") + "K\x01tQK" + std::string(1, '\0') + "K\x01\x85K\x01\x85\x89}tR";
    keys += key;
    storages += little_endian(uint64_t{1}) + little_endian(1.0F);
  }
  const std::string header =
      "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02";
  return header + object + "u.\x80\x02" + keys + "e." + storages;
}

TEST(Growth, Tensors) {
  expect_linear("tensors", [](size_t size) {
    const auto bytes = bytes_of(legacy_file(size / 120));
    return [bytes] { static_cast<void>(parse_pytorch(bytes)); };
  });
  expect_linear("one tensor many times", [](size_t size) {
    auto file = legacy_file(1);
    const auto at = file.find("u.\x80\x02]");
    file.insert(at, pickled("list") + "](" + pickled("x") + "0h" + "\x01" + "e");
    // The tensor is stored in the memo after its REDUCE, and then listed many times.
    file.insert(file.find("}tR") + 3, "q\x01");
    file.insert(file.find("0h\x01"
                          "e") +
                    1,
                repeated("h\x01", size));
    const auto bytes = bytes_of(file);
    EXPECT_GT(parse_pytorch(bytes).tensors.size(), size / 2);
    return [bytes] { static_cast<void>(parse_pytorch(bytes)); };
  });
  expect_linear("repeated containers", [](size_t size) {
    // Each list contains the next list twice, so that the limit is reached for every depth.
    auto file = legacy_file(1);
    const auto at = file.find("}tR") + 3;
    std::string nested = "](" + pickled("x") + "0";
    const auto tensor_begin = file.find("ctorch._utils"), tensor_end = at;
    nested += file.substr(tensor_begin, tensor_end - tensor_begin) + "e";
    for (size_t n = 0; n < 40; ++n) nested = "](" + nested + "2e";
    file.replace(tensor_begin, tensor_end - tensor_begin, "](" + repeated("K\x01", size) + nested + "e");
    const auto bytes = bytes_of(file);
    return [bytes] {
      try {
        static_cast<void>(parse_pytorch(bytes));
      } catch (const c10::Error&) {
      }
    };
  });
}

}  // namespace
}  // namespace attend::testing
