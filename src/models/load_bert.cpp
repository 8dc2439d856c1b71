#include <ATen/ops/cat.h>
#include <attend/checkpoint.h>
#include <attend/models/bert.h>

#include <array>
#include <string_view>
#include <utility>

#include "core/checks.h"
#include "models/config_file.h"

namespace attend::models {
namespace {

constexpr auto kLoadBert = "models::load_bert";

BertOptions bert_options(const std::string& folder) {
  const ConfigFile config(kLoadBert, folder, "config.json");
  config.require("model_type", {"bert"});
  config.require("hidden_act", {"gelu"});
  config.require("position_embedding_type", {"absolute"});
  config.require_flag("is_decoder", false);
  config.require_flag("add_cross_attention", false);
  const BertOptions defaults;
  auto options =
      BertOptions()
          .vocab_size(config.integer("vocab_size", defaults.vocab_size()))
          .hidden_size(config.integer("hidden_size", defaults.hidden_size()))
          .num_hidden_layers(config.integer("num_hidden_layers", defaults.num_hidden_layers()))
          .num_attention_heads(config.integer("num_attention_heads", defaults.num_attention_heads()))
          .intermediate_size(config.integer("intermediate_size", defaults.intermediate_size()))
          .max_position_embeddings(
              config.integer("max_position_embeddings", defaults.max_position_embeddings()))
          .type_vocab_size(config.integer("type_vocab_size", defaults.type_vocab_size()))
          .layer_norm_eps(config.number("layer_norm_eps", defaults.layer_norm_eps()))
          .dropout(config.number("hidden_dropout_prob", defaults.dropout()))
          .pad_token_id(config.integer("pad_token_id", 0));
  if (config.is_null("pad_token_id")) options.pad_token_id(std::nullopt);
  return options;
}

/// Returns the weights of the encoder, whose names begin with "bert." in the checkpoint of a model with a
/// head.
StateDict encoder_weights(const StateDict& checkpoint) {
  constexpr std::string_view kPrefix = "bert.";
  bool has_prefix = false;
  for (const auto& entry : checkpoint.tensors) has_prefix = has_prefix || entry.key().starts_with(kPrefix);
  StateDict weights;
  for (const auto& entry : checkpoint.tensors) {
    if (has_prefix && !entry.key().starts_with(kPrefix)) continue;
    const auto name = has_prefix ? entry.key().substr(kPrefix.size()) : entry.key();
    if (name != "embeddings.position_ids") weights.tensors.insert(name, entry.value());
  }
  return weights;
}

/// Fails unless the weights have the sizes in the configuration, before memory of these sizes is allocated.
void check_sizes(const BertOptions& options, const StateDict& weights) {
  const auto check = [&](const std::string& name, int64_t rows) {
    const auto* const weight = weights.tensors.find(name);
    if (weight == nullptr || !weight->sizes().equals({rows, options.hidden_size()})) {
      checks::fail(
          kLoadBert, "config.json",
          c10::str("the sizes of the weights, with ", name, " of [", rows, ", ", options.hidden_size(), "]"),
          weight == nullptr ? "no such weight" : c10::str(weight->sizes()));
    }
  };
  check("embeddings.word_embeddings.weight", options.vocab_size());
  check("embeddings.position_embeddings.weight", options.max_position_embeddings());
  check("embeddings.token_type_embeddings.weight", options.type_vocab_size());
  if (options.num_hidden_layers() < 1) return;
  check(c10::str("encoder.layer.", options.num_hidden_layers() - 1, ".intermediate.dense.weight"),
        options.intermediate_size());
}

/// Concatenates the query, key and value projections of each layer into one parameter.
StateDict with_joined_projections(const StateDict& separate) {
  constexpr std::string_view kQuery = "attention.self.query.";
  StateDict joined;
  for (const auto& entry : separate.tensors) {
    const auto& name = entry.key();
    const size_t at = name.find(kQuery);
    if (at == std::string::npos) {
      if (name.find(".attention.self.") == std::string::npos) joined.tensors.insert(name, entry.value());
      continue;
    }
    const auto layer = name.substr(0, at), parameter = name.substr(at + kQuery.size());
    const auto* key = separate.tensors.find(c10::str(layer, "attention.self.key.", parameter));
    const auto* value = separate.tensors.find(c10::str(layer, "attention.self.value.", parameter));
    if (key == nullptr || value == nullptr) {
      checks::fail(kLoadBert, "weights", c10::str("key and value weights beside ", name), "none");
    }
    joined.tensors.insert(c10::str(layer, "self_attn.in_proj_", parameter),
                          at::cat({entry.value(), *key, *value}));
  }
  return joined;
}

/// Maps a name in a checkpoint of `transformers`, after the projections were joined, to that in `Bert`.
std::string bert_key(std::string key) {
  // The order matters, since the names of attention.output contain those of output. In the oldest
  // checkpoints, the parameters of LayerNorm are called gamma and beta.
  constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kReplacements = {{
      {"LayerNorm.gamma", "LayerNorm.weight"},
      {"LayerNorm.beta", "LayerNorm.bias"},
      {"embeddings.LayerNorm.", "norm."},
      {"encoder.layer.", "encoder.layers."},
      {".attention.output.dense.", ".self_attn.out_proj."},
      {".attention.output.LayerNorm.", ".norm1."},
      {".intermediate.dense.", ".linear1."},
      {".output.dense.", ".linear2."},
      {".output.LayerNorm.", ".norm2."},
      {"pooler.dense.", "pooler."},
  }};
  for (const auto& [from, to] : kReplacements) {
    if (const size_t at = key.find(from); at != std::string::npos) key.replace(at, from.size(), to);
  }
  // Only a prefix is removed: word_embeddings ends with the same text.
  constexpr std::string_view kEmbeddings = "embeddings.";
  return key.starts_with(kEmbeddings) ? key.substr(kEmbeddings.size()) : key;
}

}  // namespace

Bert load_bert(const std::string& folder) {
  const auto weights = encoder_weights(load_weights(folder));
  const auto options = bert_options(folder).pooler(weights.tensors.contains("pooler.dense.weight"));
  check_sizes(options, weights);
  Bert bert(options);
  load_state_dict(bert, with_joined_projections(weights), {.key_mapping = bert_key});
  bert->eval();
  return bert;
}

}  // namespace attend::models
