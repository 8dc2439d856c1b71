#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <attend/models/sentence_encoder.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/checks.h"
#include "models/json_file.h"

namespace attend::models {
namespace {

using checks::fail;

constexpr auto kSentenceEncoder = "models::SentenceEncoder";

/// Fails where the configuration asks for anything but one of the ways that there are.
Pooling pooling_of(const std::string& folder) {
  const auto config = json_of(kSentenceEncoder, folder + "/1_Pooling/config.json");
  std::vector<std::string> modes;
  for (const auto& [key, value] : config.items()) {
    if (key.starts_with("pooling_mode_") && value.is_boolean() && value.get<bool>()) modes.push_back(key);
  }
  if (modes.size() == 1 && modes[0] == "pooling_mode_mean_tokens") return Pooling::mean;
  if (modes.size() == 1 && modes[0] == "pooling_mode_cls_token") return Pooling::first;
  if (modes.size() == 1 && modes[0] == "pooling_mode_max_tokens") return Pooling::max;
  fail(kSentenceEncoder, "1_Pooling/config.json", "pooling by mean, maximum or first token alone",
       modes.empty() ? "none" : c10::Join(", ", modes));
}

/// Whether modules.json ends with a normalisation; fails where it has a module that there is not here.
bool has_normalisation(const std::string& folder) {
  bool has = false;
  for (const auto& module : json_of(kSentenceEncoder, folder + "/modules.json")) {
    const std::string type = module.value("type", "");
    const auto is = [&](const char* name) { return type.ends_with(name); };
    if (!is(".Transformer") && !is(".Pooling") && !is(".Normalize")) {
      fail(kSentenceEncoder, "modules.json", "a Transformer, Pooling and perhaps Normalize", type);
    }
    has = has || is(".Normalize");
  }
  return has;
}

SentenceEncoderOptions encoder_options_of(const std::string& folder) {
  const auto has = [&](const char* file) { return std::filesystem::exists(folder + "/" + file); };
  SentenceEncoderOptions options;
  if (has("sentence_bert_config.json")) {
    const auto config = json_of(kSentenceEncoder, folder + "/sentence_bert_config.json");
    options.max_length = config.value("max_seq_length", options.max_length);
  }
  if (has("1_Pooling/config.json")) options.pooling = pooling_of(folder);
  if (has("modules.json")) options.normalize = has_normalisation(folder);
  if (has("tokenizer_config.json")) {
    const auto config = json_of(kSentenceEncoder, folder + "/tokenizer_config.json");
    if (!config.value("do_lower_case", true)) {
      fail(kSentenceEncoder, "tokenizer_config.json", "do_lower_case true, for an uncased vocabulary",
           "false");
    }
  }
  return options;
}

/// Numbers of texts, the longest first.
std::vector<size_t> by_length(const std::vector<Encoding>& encodings) {
  std::vector<size_t> order(encodings.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t n) { return encodings[n].ids.size(); });
  return order;
}

}  // namespace

SentenceEncoder SentenceEncoder::load(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) {
    fail(kSentenceEncoder, "folder", "a folder with config.json, model.safetensors and vocab.txt", folder);
  }
  try {
    return {WordPiece::load(folder + "/vocab.txt"), load_bert(folder), encoder_options_of(folder)};
  } catch (const nlohmann::json::exception& error) {
    fail(kSentenceEncoder, "folder", "configuration files with values of the right types", error.what());
  }
}

SentenceEncoder::SentenceEncoder(WordPiece tokenizer, Bert bert, const SentenceEncoderOptions& options)
    : tokenizer_(std::move(tokenizer)), bert_(std::move(bert)), options_(options) {
  const int64_t longest = bert_->options.max_position_embeddings();
  if (options_.max_length < 2 || options_.max_length > longest) {
    fail(kSentenceEncoder, "max_length", c10::str("2 ... ", longest), c10::str(options_.max_length));
  }
  if (tokenizer_.size() > bert_->options.vocab_size()) {
    fail(kSentenceEncoder, "tokenizer",
         c10::str("at most the model's ", bert_->options.vocab_size(), " tokens"),
         c10::str(tokenizer_.size()));
  }
}

torch::Tensor SentenceEncoder::encode(const std::vector<std::string>& texts,
                                      const std::function<void(size_t done)>& progress) {
  const at::NoGradGuard no_grad;
  std::vector<Encoding> encodings;
  encodings.reserve(texts.size());
  for (const auto& text : texts) encodings.push_back(tokenizer_.encode(text, options_.max_length));
  const auto order = by_length(encodings);
  auto vectors = at::empty({static_cast<int64_t>(texts.size()), bert_->options.hidden_size()},
                           bert_->word_embeddings->weight.options().requires_grad(false));
  for (size_t first = 0; first < order.size();) {
    const size_t length = encodings[order[first]].ids.size();
    const size_t rows = std::max<size_t>(1, static_cast<size_t>(options_.tokens_at_once) / length);
    const size_t end = std::min(order.size(), first + rows);
    std::vector<const Encoding*> batch;
    std::vector<int64_t> numbers;
    for (size_t n = first; n < end; ++n) {
      batch.push_back(&encodings[order[n]]);
      numbers.push_back(static_cast<int64_t>(order[n]));
    }
    vectors.index_copy_(0, at::tensor(numbers, at::kLong).to(vectors.device()), encode_batch(batch));
    first = end;
    if (progress) progress(first);
  }
  return vectors;
}

/// The longest first.
torch::Tensor SentenceEncoder::encode_batch(const std::vector<const Encoding*>& batch) {
  const auto rows = static_cast<int64_t>(batch.size());
  const auto length = static_cast<int64_t>(batch.front()->ids.size());
  auto ids = at::full({rows, length}, bert_->options.pad_token_id(), at::kLong);
  auto lengths = at::empty({rows, 1}, at::kLong);
  for (int64_t b = 0; b < rows; ++b) {
    const auto& of_text = batch[static_cast<size_t>(b)]->ids;
    std::ranges::copy(of_text, ids[b].mutable_data_ptr<int64_t>());
    lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(of_text.size());
  }
  const auto device = bert_->word_embeddings->weight.device();
  const auto mask = (at::arange(length, at::kLong) < lengths).to(device);
  BertInputs inputs;
  if (lengths.min().item<int64_t>() < length) inputs.attention_mask = mask;
  const auto vectors = pool(bert_(ids.to(device), inputs), mask, options_.pooling);
  return options_.normalize ? vectors / vectors.norm(2, -1, true).clamp_min(1e-12) : vectors;
}

}  // namespace attend::models
