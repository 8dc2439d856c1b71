#include <attend/text/tokenizer.h>
#include <c10/util/StringUtil.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <system_error>

#include "core/checks.h"
#include "text/json_field.h"
#include "text/tokenizer_parts.h"

namespace attend::text {
namespace {

constexpr auto kLoad = "text::Tokenizer";

std::string contents_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) checks::fail(kLoad, path.c_str(), "a readable file", std::generic_category().message(errno));
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Reads a side, which files call a direction.
Side read_side(const JsonField& field) {
  const auto& name = field.string();
  if (name != "Left" && name != "Right") field.fail("Left or Right", name);
  return name == "Left" ? Side::left : Side::right;
}

constexpr int64_t kMaxLength = 1'048'576;  // of padding, so that a file can't ask for any amount of memory

Truncation read_truncation(const JsonField& field) {
  Truncation truncation;
  truncation.max_length = field.at("max_length").index(std::numeric_limits<int64_t>::max());
  if (const auto side = field.find("direction")) truncation.side = read_side(*side);
  const auto strategy = field.at("strategy");
  const auto& name = strategy.string();
  if (name == "OnlyFirst") {
    truncation.strategy = TruncationStrategy::only_first;
  } else if (name == "OnlySecond") {
    truncation.strategy = TruncationStrategy::only_second;
  } else if (name != "LongestFirst") {
    strategy.fail("LongestFirst, OnlyFirst or OnlySecond", name);
  }
  return truncation;  // `stride` is about the tokens that are removed
}

Padding read_padding(const JsonField& field) {
  Padding padding;
  padding.pad_id = field.at("pad_id").index(kMaxTokenId);
  padding.pad_type_id = field.at("pad_type_id").index(kMaxTokenId);
  padding.side = read_side(field.at("direction"));
  if (const auto multiple = field.find("pad_to_multiple_of")) {
    padding.multiple_of = std::max<int64_t>(1, multiple->index(kMaxLength));
  }
  const auto strategy = field.at("strategy");
  if (strategy.value().string() != nullptr) {
    if (strategy.string() != "BatchLongest")
      strategy.fail("BatchLongest or {\"Fixed\": ...}", strategy.string());
  } else {
    padding.length = strategy.at("Fixed").index(kMaxLength);
  }
  return padding;
}

/// Reads a step that may be missing.
template <typename F>
auto read_optional(const JsonField& root, const char* name, const F& read) -> decltype(read(root)) {
  const auto field = root.find(name);
  return field ? read(*field) : nullptr;
}

void read_all_added_tokens(const JsonField& root, Pipeline& parts) {
  std::vector<AddedTokenRule> rules;
  std::vector<int64_t> ids;
  const auto field = root.find("added_tokens");
  if (field) rules = read_added_tokens(*field, ids);
  parts.added_tokens =
      std::make_unique<AddedTokens>(rules, parts.model->vocabulary(), parts.normalizer.get());
  for (size_t n = 0; n < rules.size(); ++n) {
    const auto id = parts.added_tokens->id_of(rules[n].content);
    if (!id || *id == ids[n]) continue;
    field->fail_in(c10::str("[", n, "].id"),
                   c10::str(*id, ", that of the vocabulary or the one that follows it"), c10::str(ids[n]));
  }
}

}  // namespace

Tokenizer Tokenizer::parse(std::string_view json, const std::string& name) {
  json::Value value;
  try {
    value = json::parse(json);
  } catch (const json::ParseError& error) {
    checks::fail(kLoad, name.c_str(), "a JSON object", error.what());
  }
  const JsonField root(value, name + ": ");
  auto parts = std::make_shared<Parts>();
  parts->model = read_model(root.at("model"));
  parts->normalizer = read_optional(root, "normalizer", read_normalizer);
  parts->pre_tokenizer = read_optional(root, "pre_tokenizer", read_pre_tokenizer);
  parts->post_processor = read_optional(root, "post_processor", read_post_processor);
  parts->decoder = read_optional(root, "decoder", read_decoder);
  read_all_added_tokens(root, *parts);
  Tokenizer tokenizer(parts);
  if (const auto field = root.find("truncation")) tokenizer.truncation_ = read_truncation(*field);
  if (const auto field = root.find("padding")) tokenizer.padding_ = read_padding(*field);
  return tokenizer;
}

Tokenizer Tokenizer::load(const std::string& path) {
  const bool is_folder = std::filesystem::is_directory(path);
  const auto file = is_folder ? path + "/tokenizer.json" : path;
  return parse(contents_of(file), std::filesystem::path(file).filename().string());
}

}  // namespace attend::text
