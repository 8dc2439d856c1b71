#include <ATen/ops/cat.h>
#include <attend/checkpoint.h>
#include <attend/models/bert.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "core/checks.h"
#include "models/json_file.h"

namespace attend::models {
namespace {

using checks::fail;

constexpr auto kLoadBert = "models::load_bert";

BertOptions options_in(const nlohmann::json& config) {
  if (config.value("model_type", "bert") != "bert") {
    fail(kLoadBert, "model_type", "bert", config.value("model_type", ""));
  }
  if (config.value("hidden_act", "gelu") != "gelu") {
    fail(kLoadBert, "hidden_act", "gelu", config.value("hidden_act", ""));
  }
  if (config.value("position_embedding_type", "absolute") != "absolute") {
    fail(kLoadBert, "position_embedding_type", "absolute", config.value("position_embedding_type", ""));
  }
  const BertOptions defaults;
  return BertOptions()
      .vocab_size(config.value("vocab_size", defaults.vocab_size()))
      .hidden_size(config.value("hidden_size", defaults.hidden_size()))
      .num_hidden_layers(config.value("num_hidden_layers", defaults.num_hidden_layers()))
      .num_attention_heads(config.value("num_attention_heads", defaults.num_attention_heads()))
      .intermediate_size(config.value("intermediate_size", defaults.intermediate_size()))
      .max_position_embeddings(config.value("max_position_embeddings", defaults.max_position_embeddings()))
      .type_vocab_size(config.value("type_vocab_size", defaults.type_vocab_size()))
      .layer_norm_eps(config.value("layer_norm_eps", defaults.layer_norm_eps()))
      .dropout(config.value("hidden_dropout_prob", defaults.dropout()))
      .pad_token_id(config.value("pad_token_id", defaults.pad_token_id()));
}

BertOptions bert_options_of(const std::string& folder) {
  const auto path = folder + "/config.json";
  try {
    return options_in(json_of(kLoadBert, path));
  } catch (const nlohmann::json::exception& error) {
    fail(kLoadBert, "config.json", "values of the right types", error.what());
  }
}

/// The tensors of the encoder: of a model with a head, whose names begin with bert., those alone.
Checkpoint encoder_part(const Checkpoint& checkpoint) {
  constexpr std::string_view kPrefix = "bert.";
  bool has_prefix = false;
  for (const auto& entry : checkpoint.tensors) has_prefix = has_prefix || entry.key().starts_with(kPrefix);
  Checkpoint part;
  for (const auto& entry : checkpoint.tensors) {
    if (has_prefix && !entry.key().starts_with(kPrefix)) continue;
    const auto name = has_prefix ? entry.key().substr(kPrefix.size()) : entry.key();
    if (name != "embeddings.position_ids") part.tensors.insert(name, entry.value());
  }
  return part;
}

/// Fails unless the weights are of the sizes that the options name, before anything is made of that size.
void check_sizes(const BertOptions& options, const Checkpoint& weights) {
  const auto check = [&](const std::string& name, int64_t rows) {
    const auto* const weight = weights.tensors.find(name);
    if (weight == nullptr || !weight->sizes().equals({rows, options.hidden_size()})) {
      fail(kLoadBert, "config.json",
           c10::str("the sizes of the weights; ", name, " of [", rows, ", ", options.hidden_size(), "]"),
           weight == nullptr ? "none" : c10::str(weight->sizes()));
    }
  };
  check("embeddings.word_embeddings.weight", options.vocab_size());
  check("embeddings.position_embeddings.weight", options.max_position_embeddings());
  check("embeddings.token_type_embeddings.weight", options.type_vocab_size());
  if (options.num_hidden_layers() < 1) return;
  check(c10::str("encoder.layer.", options.num_hidden_layers() - 1, ".intermediate.dense.weight"),
        options.intermediate_size());
}

/// Queries', keys' and values' projections of each layer, in one parameter.
Checkpoint with_joined_projections(const Checkpoint& separate) {
  constexpr std::string_view kQuery = "attention.self.query.";
  Checkpoint joined;
  for (const auto& entry : separate.tensors) {
    const auto& name = entry.key();
    const size_t at = name.find(kQuery);
    if (at == std::string::npos) {
      if (name.find(".attention.self.") == std::string::npos) joined.tensors.insert(name, entry.value());
      continue;
    }
    const auto layer = name.substr(0, at), kind = name.substr(at + kQuery.size());
    const auto* key = separate.tensors.find(c10::str(layer, "attention.self.key.", kind));
    const auto* value = separate.tensors.find(c10::str(layer, "attention.self.value.", kind));
    if (key == nullptr || value == nullptr) {
      fail(kLoadBert, "model.safetensors", c10::str("a key and a value beside ", name), "none");
    }
    joined.tensors.insert(c10::str(layer, "self_attn.in_proj_", kind),
                          at::cat({entry.value(), *key, *value}));
  }
  return joined;
}

/// From the names of `transformers` to ours; after the projections were joined.
std::vector<Rename> renames() {
  return {{"LayerNorm.gamma", "LayerNorm.weight"},
          {"LayerNorm.beta", "LayerNorm.bias"},
          {"^embeddings.LayerNorm", "norm"},
          {"^embeddings", ""},
          {"^encoder.layer", "encoder.layers"},
          {"attention.output.dense", "self_attn.out_proj"},
          {"attention.output.LayerNorm", "norm1"},
          {"intermediate.dense", "linear1"},
          {"output.dense", "linear2"},
          {"output.LayerNorm", "norm2"},
          {"^pooler.dense", "pooler"}};
}

}  // namespace

Bert load_bert(const std::string& folder) {
  const auto checkpoint = encoder_part(load_safetensors(folder + "/model.safetensors"));
  const auto options = bert_options_of(folder).pooler(checkpoint.tensors.contains("pooler.dense.weight"));
  check_sizes(options, checkpoint);
  Bert bert(options);
  load_into(*bert, with_joined_projections(checkpoint), {.rename = renames()});
  bert->eval();
  return bert;
}

}  // namespace attend::models
