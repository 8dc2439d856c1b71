#include <attend/models/word_piece.h>

#include <array>
#include <charconv>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "core/checks.h"
#include "models/config_file.h"

namespace attend::models {
namespace {

constexpr auto kLoad = "models::load_word_piece";
constexpr auto kConfig = "tokenizer_config.json";

/// Reads a token of a configuration file: a string, or an object with the text and the settings of the token.
std::optional<AddedToken> read_token(const json::Value& value) {
  if (const auto* const text = value.string()) return AddedToken{*text};
  const auto* const content = value.find("content");
  if (content == nullptr || content->string() == nullptr) return {};
  const auto flag = [&](const char* name, bool fallback) {
    const auto* const field = value.find(name);
    return field == nullptr || field->boolean() == nullptr ? fallback : *field->boolean();
  };
  // In `transformers`, tokens that are not special are found in the normalized text, unless the object has
  // the field `normalized`.
  const bool is_named = value.find("special") == nullptr;
  return AddedToken{*content->string(), flag("normalized", !is_named && !flag("special", false)),
                    flag("single_word", false)};
}

/// Reads the settings of a tokenizer from the files of a folder.
class SettingsReader {
 public:
  explicit SettingsReader(const std::string& folder) : folder_(folder) {}

  WordPieceOptions read() {
    if (has_file(folder_, kConfig)) read_config();
    if (!has_decoder_ && has_file(folder_, "special_tokens_map.json")) {
      read_special_tokens(ConfigFile(kLoad, folder_, "special_tokens_map.json"));
    }
    if (!has_decoder_ && has_file(folder_, "added_tokens.json")) read_added_tokens_file();
    add_special_tokens();
    return options_.added_tokens(std::move(added_));
  }

  /// Fails unless the tokens have the ids that the files declare.
  void check_ids(const WordPiece& tokenizer) const {
    for (const auto& [token, declared] : declared_ids_) {
      const auto id = tokenizer.token_to_id(token);
      if (id == declared) continue;
      checks::fail(kLoad, c10::str(declared_in_, ": added tokens").c_str(),
                   c10::str("ids of the vocabulary or those that follow it, with \"", token, "\" at ",
                            id.value_or(-1)),
                   c10::str("the id ", declared));
    }
  }

 private:
  void read_config() {
    const ConfigFile config(kLoad, folder_, kConfig);
    config.require("tokenizer_class", {"BertTokenizer", "BertTokenizerFast"});
    config.require_flag("do_basic_tokenize", true);
    config.require_flag("split_special_tokens", false);
    config.require("padding_side", {"right"});
    config.require("truncation_side", {"right", "left"});
    const auto* const never_split = config.find("never_split");
    if (never_split != nullptr && (never_split->array() == nullptr || !never_split->array()->empty())) {
      config.fail("never_split", "none", "words that are not split");
    }
    options_.do_lower_case(config.boolean("do_lower_case", true))
        .tokenize_chinese_chars(config.boolean("tokenize_chinese_chars", true));
    if (config.find("strip_accents") != nullptr)
      options_.strip_accents(config.boolean("strip_accents", true));
    if (config.string("truncation_side", "right") == "left") {
      options_.truncation_side(TruncationSide::left);
    }
    // `transformers` writes 10^30 for a model whose maximum it does not know.
    constexpr double kUnknown = 9007199254740992;  // 2^53
    const double length = config.number("model_max_length", kUnknown);
    if (length < kUnknown) options_.model_max_length(config.integer("model_max_length", 0));
    read_special_tokens(config);
    read_added_tokens(config);
  }

  /// Reads the names of the special tokens of BERT, and of other special tokens, which become added tokens.
  void read_special_tokens(const ConfigFile& config) {
    const std::array<std::pair<const char*, std::string*>, 5> names = {
        {{"unk_token", &options_.unk_token()},
         {"cls_token", &options_.cls_token()},
         {"sep_token", &options_.sep_token()},
         {"pad_token", &options_.pad_token()},
         {"mask_token", &options_.mask_token()}}};
    for (const auto& [field, name] : names) {
      const bool may_be_null = name == &options_.pad_token() || name == &options_.mask_token();
      if (config.is_null(field) && !may_be_null) config.fail(field, "a token", "null");
      if (config.is_null(field)) *name = "";
      if (const auto token = read_token(config, field)) {
        *name = token->content;
        named_.push_back(*token);
      }
    }
    for (const char* field : {"bos_token", "eos_token"}) {
      if (auto token = read_token(config, field)) extra_.push_back(std::move(*token));
    }
    for (const char* field : {"additional_special_tokens", "extra_special_tokens"}) {
      read_token_list(config, field);
    }
  }

  static std::optional<AddedToken> read_token(const ConfigFile& config, const char* field) {
    const auto* const value = config.find(field);
    if (value == nullptr) return {};
    auto token = models::read_token(*value);
    if (!token) config.fail(field, "a token", value->type_name());
    return token;
  }

  /// Reads an array of tokens, or an object with the tokens as values.
  void read_token_list(const ConfigFile& config, const char* field) {
    const auto* const list = config.find(field);
    if (list == nullptr) return;
    const auto add = [&](const json::Value& value) {
      auto token = models::read_token(value);
      if (!token) config.fail(field, "tokens", value.type_name());
      extra_.push_back(std::move(*token));
    };
    if (list->array() != nullptr) {
      for (const auto& value : *list->array()) add(value);
    } else if (list->object() != nullptr) {
      for (const auto& [name, value] : *list->object()) add(value);
    } else {
      config.fail(field, "tokens", list->type_name());
    }
  }

  void read_added_tokens(const ConfigFile& config) {
    const auto* const field = config.find("added_tokens_decoder");
    if (field == nullptr) return;
    has_decoder_ = true;
    if (field->object() == nullptr) config.fail("added_tokens_decoder", "an object", field->type_name());
    std::map<int64_t, AddedToken> tokens;
    for (const auto& [key, value] : *field->object()) {
      int64_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      auto token = models::read_token(value);
      if (error != std::errc() || end != key.data() + key.size() || !token) {
        config.fail("added_tokens_decoder", "tokens by their ids", c10::str("the entry \"", key, "\""));
      }
      tokens.emplace(id, std::move(*token));
    }
    declare(kConfig, tokens);
  }

  /// Reads the file in which older versions stored the ids of added tokens. These tokens are found in the
  /// normalized text unless they are special.
  void read_added_tokens_file() {
    const ConfigFile config(kLoad, folder_, "added_tokens.json");
    std::set<std::string_view> special;
    for (const auto& token : named_) special.insert(token.content);
    for (const auto& token : extra_) special.insert(token.content);
    std::map<int64_t, AddedToken> tokens;
    if (config.root().object() == nullptr) config.fail("tokens", "an object", config.root().type_name());
    for (const auto& [text, value] : *config.root().object()) {
      tokens.emplace(config.integer(text.c_str(), -1), AddedToken{text, !special.contains(text)});
    }
    declare("added_tokens.json", tokens);
  }

  void declare(const char* file, const std::map<int64_t, AddedToken>& tokens) {
    declared_in_ = file;
    for (const auto& [id, token] : tokens) {
      declared_ids_.emplace_back(token.content, id);
      add_once(token);
    }
  }

  /// Adds the special tokens that are not declared with an id. The padding and mask tokens need not be in the
  /// vocabulary.
  void add_special_tokens() {
    for (const auto& token : named_) {
      if (token.normalized || token.single_word) add_once(token);
    }
    for (const auto& token : extra_) add_once(token);
  }

  void add_once(const AddedToken& token) {
    if (!token.content.empty() && known_.insert(token.content).second) added_.push_back(token);
  }

  const std::string& folder_;
  WordPieceOptions options_;
  std::vector<AddedToken> named_, extra_, added_;
  std::vector<std::pair<std::string, int64_t>> declared_ids_;
  std::string declared_in_;   ///< the name of the file that declares the added tokens
  bool has_decoder_ = false;  ///< whether tokenizer_config.json declares the added tokens
  std::set<std::string> known_;
};

}  // namespace

WordPiece load_word_piece(const std::string& folder) {
  if (!has_file(folder, "vocab.txt") && has_file(folder, "tokenizer.json")) {
    checks::fail(kLoad, folder.c_str(), "vocab.txt", "tokenizer.json alone, which is not supported");
  }
  SettingsReader reader(folder);
  const auto options = reader.read();
  auto tokenizer = WordPiece::load(folder + "/vocab.txt", options);
  reader.check_ids(tokenizer);
  return tokenizer;
}

}  // namespace attend::models
