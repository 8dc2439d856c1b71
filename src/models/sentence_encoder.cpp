#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <attend/models/sentence_encoder.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/checks.h"
#include "models/config_file.h"

namespace attend::models {
namespace {

using checks::fail;

constexpr auto kSentenceEncoder = "models::SentenceEncoder";

/// The pooling that 1_Pooling/config.json enables. Fails unless it is exactly one of those in `Pooling`.
Pooling read_pooling(const std::string& folder) {
  const ConfigFile config(kSentenceEncoder, folder, "1_Pooling/config.json");
  std::vector<std::string> modes;
  if (const auto* const fields = config.root().object()) {
    for (const auto& [key, value] : *fields) {
      if (key.starts_with("pooling_mode_") && value.boolean() != nullptr && *value.boolean()) {
        modes.push_back(key);
      }
    }
  }
  if (modes.size() == 1 && modes[0] == "pooling_mode_mean_tokens") return Pooling::mean;
  if (modes.size() == 1 && modes[0] == "pooling_mode_cls_token") return Pooling::cls;
  if (modes.size() == 1 && modes[0] == "pooling_mode_max_tokens") return Pooling::max;
  fail(kSentenceEncoder, "1_Pooling/config.json", "one of mean, max and cls pooling",
       modes.empty() ? "none" : c10::Join(", ", modes));
}

/// Whether modules.json contains a normalization. Fails if it contains a module that is not supported.
bool read_normalize(const std::string& folder) {
  const ConfigFile config(kSentenceEncoder, folder, "modules.json");
  if (config.root().array() == nullptr) {
    fail(kSentenceEncoder, "modules.json", "a JSON array of modules", config.root().type_name());
  }
  bool normalize = false;
  for (const auto& module : *config.root().array()) {
    const auto* const field = module.find("type");
    const std::string type = field != nullptr && field->string() != nullptr ? *field->string() : "";
    const bool is_normalize = type.ends_with(".Normalize");
    if (!type.ends_with(".Transformer") && !type.ends_with(".Pooling") && !is_normalize) {
      fail(kSentenceEncoder, "modules.json", "the modules Transformer, Pooling and Normalize",
           type.empty() ? "a module without a type" : type);
    }
    normalize = normalize || is_normalize;
  }
  return normalize;
}

SentenceEncoderOptions read_options(const std::string& folder) {
  const auto exists = [&](const char* file) { return std::filesystem::exists(folder + "/" + file); };
  SentenceEncoderOptions options;
  if (exists("sentence_bert_config.json")) {
    const ConfigFile config(kSentenceEncoder, folder, "sentence_bert_config.json");
    options.max_length(config.integer("max_seq_length", options.max_length()));
  }
  if (exists("1_Pooling/config.json")) options.pooling(read_pooling(folder));
  if (exists("modules.json")) options.normalize(read_normalize(folder));
  if (exists("tokenizer_config.json")) {
    const ConfigFile config(kSentenceEncoder, folder, "tokenizer_config.json");
    if (!config.boolean("do_lower_case", true)) {
      config.fail("do_lower_case", "true, for an uncased vocabulary", "false");
    }
  }
  return options;
}

/// The indices of texts in the order of decreasing length.
std::vector<size_t> order_by_length(const std::vector<Encoding>& encodings) {
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
  return {WordPiece::load(folder + "/vocab.txt"), load_bert(folder), read_options(folder)};
}

SentenceEncoder::SentenceEncoder(WordPiece tokenizer, Bert bert, const SentenceEncoderOptions& options)
    : tokenizer_(std::move(tokenizer)), bert_(std::move(bert)), options_(options) {
  const int64_t limit = bert_->options.max_position_embeddings();
  if (options_.max_length() < 2 || options_.max_length() > limit) {
    fail(kSentenceEncoder, "max_length", c10::str("2 ... ", limit, ", the maximum of the model"),
         c10::str(options_.max_length()));
  }
  if (tokenizer_.vocab_size() > bert_->options.vocab_size()) {
    fail(kSentenceEncoder, "tokenizer",
         c10::str("at most ", bert_->options.vocab_size(), " tokens, the vocabulary of the model"),
         c10::str(tokenizer_.vocab_size()));
  }
}

torch::Tensor SentenceEncoder::encode(const std::vector<std::string>& texts,
                                      const std::function<void(size_t done)>& progress) {
  const at::NoGradGuard no_grad;
  std::vector<Encoding> encodings;
  encodings.reserve(texts.size());
  for (const auto& text : texts) encodings.push_back(tokenizer_.encode(text, options_.max_length()));
  const auto order = order_by_length(encodings);
  auto vectors = at::empty({static_cast<int64_t>(texts.size()), bert_->options.hidden_size()},
                           bert_->word_embeddings->weight.options().requires_grad(false));
  for (size_t first = 0; first < order.size();) {
    const size_t length = encodings[order[first]].ids.size();
    const size_t rows = std::max<size_t>(1, static_cast<size_t>(options_.max_batch_tokens()) / length);
    const size_t end = std::min(order.size(), first + rows);
    std::vector<const Encoding*> batch;
    std::vector<int64_t> rows_of_batch;
    for (size_t n = first; n < end; ++n) {
      batch.push_back(&encodings[order[n]]);
      rows_of_batch.push_back(static_cast<int64_t>(order[n]));
    }
    vectors.index_copy_(0, at::tensor(rows_of_batch, at::kLong).to(vectors.device()), encode_batch(batch));
    first = end;
    if (progress) progress(first);
  }
  return vectors;
}

/// The vectors of texts in the order of decreasing length, [N, hidden_size].
torch::Tensor SentenceEncoder::encode_batch(const std::vector<const Encoding*>& batch) {
  const auto rows = static_cast<int64_t>(batch.size());
  const auto length = static_cast<int64_t>(batch.front()->ids.size());
  auto ids = at::full({rows, length}, bert_->options.pad_token_id(), at::kLong);
  auto lengths = at::empty({rows, 1}, at::kLong);
  for (int64_t b = 0; b < rows; ++b) {
    const auto& text_ids = batch[static_cast<size_t>(b)]->ids;
    std::ranges::copy(text_ids, ids[b].mutable_data_ptr<int64_t>());
    lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(text_ids.size());
  }
  const auto device = bert_->word_embeddings->weight.device();
  const auto mask = (at::arange(length, at::kLong) < lengths).to(device);
  BertParams params;
  if (lengths.min().item<int64_t>() < length) params.attention_mask = mask;
  const auto vectors = pool(bert_(ids.to(device), params), mask, options_.pooling());
  return options_.normalize() ? vectors / vectors.norm(2, -1, true).clamp_min(1e-12) : vectors;
}

}  // namespace attend::models
