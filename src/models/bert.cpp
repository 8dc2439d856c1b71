#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>
#include <attend/models/bert.h>

#include <limits>
#include <ostream>
#include <vector>

#include "core/checks.h"

namespace attend::models {
namespace {

using checks::describe;
using checks::fail;

constexpr auto kBert = "models::Bert";

nn::TransformerLayerOptions layer_options(const BertOptions& options) {
  return nn::TransformerLayerOptions(options.hidden_size(), options.num_attention_heads())
      .dim_feedforward(options.intermediate_size())
      .dropout(options.dropout())
      .activation(nn::Activation::gelu)
      .layer_norm_eps(options.layer_norm_eps());
}

/// Padding that follows each text, as is usual, is told by the texts' lengths: keys past them are not read.
nn::MultiHeadAttentionInputs masks_of(const BertInputs& inputs) {
  if (!inputs.attention_mask.defined()) return {};
  const auto is_token = inputs.attention_mask != 0;
  if (is_token.is_cpu()) {
    const auto lengths = is_token.sum(-1);
    const auto expected = at::arange(is_token.size(-1), lengths.options()) < lengths.unsqueeze(-1);
    if (at::equal(is_token, expected)) return {.mask = key_lengths(lengths)};
  }
  return {.key_padding_mask = is_token.logical_not()};
}

/// Fails unless the tensor is of integers, or booleans where they may be, and of the shape of `ids`.
void check_like(const char* argument, const torch::Tensor& tensor, const torch::Tensor& ids,
                bool may_be_bool) {
  checks::is_strided(kBert, argument, tensor);
  const bool has_dtype =
      tensor.scalar_type() == at::kLong || (may_be_bool && tensor.scalar_type() == at::kBool);
  if (!has_dtype || tensor.sizes() != ids.sizes()) {
    fail(kBert, argument, c10::str(may_be_bool ? "bool or int64 " : "int64 ", ids.sizes()), describe(tensor));
  }
}

/// Where the numbers are at hand, without waiting for another device.
void check_below(const char* argument, const torch::Tensor& numbers, int64_t end) {
  if (!numbers.is_cpu() || numbers.numel() == 0) return;
  const auto [least, largest] = at::aminmax(numbers);
  if (least.item<int64_t>() >= 0 && largest.item<int64_t>() < end) return;
  fail(kBert, argument, c10::str("0 ... ", end - 1),
       c10::str(least.item<int64_t>(), " ... ", largest.item<int64_t>()));
}

}  // namespace

BertImpl::BertImpl(const BertOptions& options_) : options(options_) { reset(); }

void BertImpl::reset() {
  const auto embedding = [this](const char* name, const torch::nn::EmbeddingOptions& of) {
    return register_module(name, torch::nn::Embedding(of));
  };
  const int64_t width = options.hidden_size();
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) fail(kBert, name, c10::str("at least ", least), c10::str(value));
  };
  at_least("hidden_size", width, 1);
  at_least("vocab_size", options.vocab_size(), 1);
  at_least("max_position_embeddings", options.max_position_embeddings(), 1);
  at_least("type_vocab_size", options.type_vocab_size(), 1);
  if (options.pad_token_id() < 0 || options.pad_token_id() >= options.vocab_size()) {
    fail(kBert, "pad_token_id", c10::str("0 ... ", options.vocab_size() - 1),
         c10::str(options.pad_token_id()));
  }
  word_embeddings =
      embedding("word_embeddings",
                torch::nn::EmbeddingOptions(options.vocab_size(), width).padding_idx(options.pad_token_id()));
  position_embeddings = embedding("position_embeddings", {options.max_position_embeddings(), width});
  token_type_embeddings = embedding("token_type_embeddings", {options.type_vocab_size(), width});
  norm = register_module("norm", nn::Norm(layer_options(options)));
  encoder = register_module("encoder", nn::TransformerEncoder(nn::TransformerStackOptions(
                                           layer_options(options), options.num_hidden_layers())));
  if (options.pooler()) pooler = register_module("pooler", torch::nn::Linear(width, width));
}

void BertImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::models::Bert(vocab_size=" << options.vocab_size()
         << ", hidden_size=" << options.hidden_size() << ", num_hidden_layers=" << options.num_hidden_layers()
         << ")";
}

/// Fails unless the arguments are what `forward` takes.
torch::Tensor BertImpl::embed(const torch::Tensor& ids, const BertInputs& inputs) {
  checks::is_strided(kBert, "ids", ids);
  const int64_t longest = options.max_position_embeddings();
  if (ids.scalar_type() != at::kLong || ids.dim() != 2 || ids.size(1) > longest) {
    fail(kBert, "ids", c10::str("int64 [B, L] with L of at most ", longest), describe(ids));
  }
  if (inputs.attention_mask.defined()) check_like("attention_mask", inputs.attention_mask, ids, true);
  if (inputs.token_type_ids.defined()) check_like("token_type_ids", inputs.token_type_ids, ids, false);
  check_below("ids", ids, options.vocab_size());
  if (inputs.token_type_ids.defined())
    check_below("token_type_ids", inputs.token_type_ids, options.type_vocab_size());
  const auto types = inputs.token_type_ids.defined() ? inputs.token_type_ids : at::zeros_like(ids);
  const auto x = word_embeddings(ids) + token_type_embeddings(types) +
                 position_embeddings(at::arange(ids.size(1), ids.options()));
  return at::dropout(norm(x), options.dropout(), is_training());
}

torch::Tensor BertImpl::forward(const torch::Tensor& ids, const BertInputs& inputs) {
  return encoder(embed(ids, inputs), masks_of(inputs));
}

torch::Tensor BertImpl::attention_weights(const torch::Tensor& ids, const BertInputs& inputs) {
  auto x = embed(ids, inputs);
  const auto masks = masks_of(inputs);
  std::vector<torch::Tensor> weights;
  for (size_t n = 0; n < encoder->layers->size(); ++n) {
    const auto layer = encoder->layers->ptr<nn::TransformerEncoderLayerImpl>(n);
    weights.push_back(
        std::get<1>(layer->self_attn->forward_with_weights(x, {}, {}, masks, /*average=*/false)));
    x = layer->forward(x, masks);
  }
  return at::stack(weights);
}

torch::Tensor BertImpl::pooled(const torch::Tensor& hidden) {
  if (pooler.is_empty()) fail(kBert, "options", "a pooler", "none");
  return at::tanh(pooler(hidden.select(1, 0)));
}

torch::Tensor pool(const torch::Tensor& hidden, const torch::Tensor& attention_mask, Pooling pooling) {
  constexpr auto kPool = "models::pool";
  checks::is_strided(kPool, "hidden", hidden);
  checks::is_strided(kPool, "attention_mask", attention_mask);
  if (hidden.dim() != 3 || attention_mask.sizes() != hidden.sizes().slice(0, 2)) {
    fail(kPool, "attention_mask", "[B, L] beside [B, L, E]",
         c10::str(describe(attention_mask), " beside ", describe(hidden)));
  }
  const auto is_padding = (attention_mask == 0).unsqueeze(-1);
  switch (pooling) {
    case Pooling::first:
      return hidden.select(1, 0);
    case Pooling::max:
      return hidden.masked_fill(is_padding, -std::numeric_limits<double>::infinity()).amax(1);
    default:
      return hidden.masked_fill(is_padding, 0).sum(1) / is_padding.logical_not().sum(1).clamp_min(1);
  }
}

}  // namespace attend::models
