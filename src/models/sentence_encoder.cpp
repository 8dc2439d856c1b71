#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <attend/models/sentence_encoder.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "core/checks.h"
#include "models/basic_tokenizer.h"

namespace attend::models {
namespace {

using checks::fail;

constexpr auto kSentenceEncoder = "models::SentenceEncoder";

/// Returns the prompt with a name, or the default prompt for an empty name.
std::string prompt_named(const SentenceEncoderOptions& options, const std::string& name) {
  const auto& used = name.empty() ? options.default_prompt_name() : name;
  if (used.empty()) return {};
  const auto found = options.prompts().find(used);
  if (found != options.prompts().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, prompt] : options.prompts()) names.push_back(known);
  fail(kSentenceEncoder, name.empty() ? "default_prompt_name" : "prompt_name",
       names.empty() ? "none, since there are no prompts" : "one of " + c10::Join(", ", names), used);
}

/// Returns the indices of texts in the order of decreasing length.
std::vector<size_t> order_by_length(const std::vector<Encoding>& encodings) {
  std::vector<size_t> order(encodings.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t n) { return encodings[n].ids.size(); });
  return order;
}

}  // namespace

SentenceEncoder::SentenceEncoder(WordPiece tokenizer, Bert bert, const SentenceEncoderOptions& options)
    : tokenizer_(std::move(tokenizer)), bert_(std::move(bert)), options_(options) {
  const int64_t limit = bert_->options.max_position_embeddings();
  if (!options_.max_length()) {
    options_.max_length(std::min(limit, tokenizer_.options().model_max_length().value_or(limit)));
  }
  if (max_length() < 2 || max_length() > limit) {
    fail(kSentenceEncoder, "max_length", c10::str("2 ... ", limit, ", the maximum of the model"),
         c10::str(max_length()));
  }
  prompt_named(options_, "");
  if (tokenizer_.vocab_size() > bert_->options.vocab_size()) {
    fail(kSentenceEncoder, "tokenizer",
         c10::str("at most ", bert_->options.vocab_size(), " tokens, the vocabulary of the model"),
         c10::str(tokenizer_.vocab_size()));
  }
}

Encoding SentenceEncoder::tokens_of(const std::string& prompt, const std::string& text) const {
  if (!options_.do_lower_case()) {
    return prompt.empty() ? tokenizer_.encode(text, max_length())
                          : tokenizer_.encode(prompt + text, max_length());
  }
  constexpr size_t kMaxBytes = std::numeric_limits<int32_t>::max();
  const auto whole = prompt + text;
  if (whole.size() > kMaxBytes)
    fail(kSentenceEncoder, "texts", c10::str("texts of at most ", kMaxBytes, " bytes"),
         c10::str(whole.size()));
  return tokenizer_.encode(lower_case(whole), max_length());
}

torch::Tensor SentenceEncoder::encode(const std::vector<std::string>& texts,
                                      const std::function<void(size_t done)>& progress,
                                      const std::string& prompt_name) {
  const at::NoGradGuard no_grad;
  std::vector<Encoding> encodings;
  encodings.reserve(texts.size());
  const auto prompt = prompt_named(options_, prompt_name);
  for (const auto& text : texts) encodings.push_back(tokens_of(prompt, text));
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

/// Returns the vectors [N, hidden_size] of texts that are sorted by decreasing length.
torch::Tensor SentenceEncoder::encode_batch(const std::vector<const Encoding*>& batch) {
  const auto rows = static_cast<int64_t>(batch.size());
  const auto length = static_cast<int64_t>(batch.front()->ids.size());
  const auto ids = at::full({rows, length}, bert_->options.pad_token_id().value_or(0), at::kLong);
  const auto lengths = at::empty({rows, 1}, at::kLong);
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
