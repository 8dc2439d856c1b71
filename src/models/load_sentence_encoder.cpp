#include <attend/models/sentence_encoder.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <utility>

#include "core/checks.h"
#include "models/config_file.h"

namespace attend::models {
namespace {

using checks::fail;

constexpr auto kLoadEncoder = "models::SentenceEncoder";

/// The folders of the modules, and whether vectors are normalized.
struct Modules {
  std::string transformer, pooling;
  bool has_pooling_folder = false;  ///< whether modules.json names the folder `pooling`
  bool normalize = SentenceEncoderOptions().normalize();
};

/// Returns the folder to which the path of a module refers. Fails if the path leads out of the folder of the
/// model.
std::string folder_of_module(const std::string& folder, const std::string& path) {
  const std::filesystem::path relative(path);
  const bool leads_out =
      relative.is_absolute() || std::ranges::any_of(relative, [](const auto& part) { return part == ".."; });
  if (leads_out) fail(kLoadEncoder, "modules.json: path", "a folder below that of the model", path);
  return path.empty() ? folder : folder + "/" + path;
}

Modules read_modules(const std::string& folder) {
  Modules modules{.transformer = folder, .pooling = folder + "/1_Pooling"};
  if (!has_file(folder, "modules.json")) return modules;
  const ConfigFile config(kLoadEncoder, folder, "modules.json");
  if (config.root().array() == nullptr) {
    fail(kLoadEncoder, "modules.json", "a JSON array of modules", config.root().type_name());
  }
  constexpr std::array<std::string_view, 3> kTypes = {".Transformer", ".Pooling", ".Normalize"};
  size_t next = 0;  // the index of the next allowed type
  for (const auto& module : *config.root().array()) {
    const auto text = [&](const char* field) {
      const auto* const value = module.find(field);
      return value != nullptr && value->string() != nullptr ? value->string() : nullptr;
    };
    const auto* const type = text("type");
    const auto* const path = text("path");
    const auto kind = std::ranges::find_if(
        kTypes, [&](std::string_view known) { return type != nullptr && type->ends_with(known); });
    const auto index = static_cast<size_t>(kind - kTypes.begin());
    if (kind == kTypes.end() || index != next) {
      fail(kLoadEncoder, "modules.json", "the modules Transformer, Pooling and Normalize, in this order",
           type == nullptr ? "a module without a type" : *type);
    }
    next = index + 1;
    if (index == 0 && path != nullptr) modules.transformer = folder_of_module(folder, *path);
    if (index == 1 && path != nullptr) {
      modules.pooling = folder_of_module(folder, *path);
      modules.has_pooling_folder = true;
    }
  }
  if (next < 2) fail(kLoadEncoder, "modules.json", "the modules Transformer and Pooling", "fewer");
  modules.normalize = next == kTypes.size();
  return modules;
}

/// Returns the pooling that a configuration enables. Fails unless it enables exactly one mode, and `Pooling`
/// has that mode.
Pooling read_pooling(const ConfigFile& config, const char* name) {
  std::vector<std::string> modes;
  if (const auto* const fields = config.root().object()) {
    for (const auto& [key, value] : *fields) {
      if (key.starts_with("pooling_mode_") && value.boolean() != nullptr && *value.boolean()) {
        modes.push_back(key);
      }
    }
  }
  // Newer versions have one field with the name of the mode.
  if (const auto mode = config.string("pooling_mode", ""); !mode.empty()) modes.push_back(mode);
  const auto is = [&](const char* mode, const char* flag) {
    return modes.size() == 1 && (modes[0] == mode || modes[0] == flag);
  };
  if (is("mean", "pooling_mode_mean_tokens")) return Pooling::mean;
  if (is("cls", "pooling_mode_cls_token")) return Pooling::cls;
  if (is("max", "pooling_mode_max_tokens")) return Pooling::max;
  fail(kLoadEncoder, name, "one of mean, max and cls pooling",
       modes.empty() ? "none" : c10::Join(", ", modes));
}

/// Reads the prompts, and the name of the default prompt.
void read_prompts(const std::string& folder, SentenceEncoderOptions& options) {
  constexpr auto kFile = "config_sentence_transformers.json";
  if (!has_file(folder, kFile)) return;
  const ConfigFile config(kLoadEncoder, folder, kFile);
  if (const auto* const prompts = config.find("prompts")) {
    if (prompts->object() == nullptr) config.fail("prompts", "an object", prompts->type_name());
    for (const auto& [name, prompt] : *prompts->object()) {
      if (prompt.string() == nullptr) config.fail("prompts", "texts by name", prompt.type_name());
      options.prompts().emplace(name, *prompt.string());
    }
  }
  options.default_prompt_name(config.string("default_prompt_name", ""));
  config.require("model_type", {"SentenceTransformer"});
  if (config.find("truncate_dim") != nullptr) config.fail("truncate_dim", "none", "a number");
}

SentenceEncoderOptions read_options(const std::string& folder, const Modules& modules) {
  auto options = SentenceEncoderOptions().normalize(modules.normalize);
  constexpr auto kFile = "sentence_bert_config.json";
  if (has_file(modules.transformer, kFile)) {
    const ConfigFile config(kLoadEncoder, modules.transformer, kFile);
    if (config.find("max_seq_length") != nullptr) options.max_length(config.integer("max_seq_length", 0));
    options.do_lower_case(config.boolean("do_lower_case", false));
  }
  read_prompts(folder, options);
  if (!modules.has_pooling_folder && !has_file(modules.pooling, "config.json")) return options;
  const auto name =
      std::filesystem::path(modules.pooling + "/config.json").lexically_relative(folder).string();
  const ConfigFile config(kLoadEncoder, folder, name);
  options.pooling(read_pooling(config, name.c_str()));
  const bool has_prompt =
      std::ranges::any_of(options.prompts(), [](const auto& prompt) { return !prompt.second.empty(); });
  if (has_prompt) config.require_flag("include_prompt", true);
  return options;
}

}  // namespace

SentenceEncoder SentenceEncoder::load(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) {
    fail(kLoadEncoder, "folder", "a folder with config.json, vocab.txt and weights", folder);
  }
  const auto modules = read_modules(folder);
  const auto options = read_options(folder, modules);
  return {load_word_piece(modules.transformer), load_bert(modules.transformer), options};
}

}  // namespace attend::models
