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

/// Returns the masks for an attention mask. If padding only follows the texts, the usual case, the mask
/// becomes key lengths, so that keys past them are not read.
nn::MultiHeadAttentionParams masks_of(const BertParams& params) {
  if (!params.attention_mask.defined()) return {};
  const auto is_token = params.attention_mask != 0;
  if (is_token.is_cpu()) {
    const auto lengths = is_token.sum(-1);
    const auto expected = at::arange(is_token.size(-1), lengths.options()) < lengths.unsqueeze(-1);
    if (at::equal(is_token, expected)) return {.mask = key_lengths(lengths)};
  }
  return {.key_padding_mask = is_token.logical_not()};
}

void check_device(const char* argument, const torch::Tensor& tensor, at::Device device) {
  if (tensor.device() == device) return;
  fail(kBert, argument, c10::str("a tensor on the parameters' device ", device), c10::str(tensor.device()));
}

/// Fails unless the tensor has the shape and device of `ids` and is int64, or boolean if that is allowed.
void check_like_ids(const char* argument, const torch::Tensor& tensor, const torch::Tensor& ids,
                    bool may_be_bool) {
  checks::check_strided(kBert, argument, tensor);
  const bool has_dtype =
      tensor.scalar_type() == at::kLong || (may_be_bool && tensor.scalar_type() == at::kBool);
  if (!has_dtype || tensor.sizes() != ids.sizes()) {
    fail(kBert, argument, c10::str(may_be_bool ? "bool or int64 " : "int64 ", ids.sizes()), describe(tensor));
  }
  check_device(argument, tensor, ids.device());
}

/// Fails unless the values are in [0, end). Values on other devices than the CPU are not checked, since that
/// would synchronise with the device.
void check_range(const char* argument, const torch::Tensor& values, int64_t end) {
  if (!values.is_cpu() || values.numel() == 0) return;
  const auto [least, largest] = at::aminmax(values);
  if (least.item<int64_t>() >= 0 && largest.item<int64_t>() < end) return;
  fail(kBert, argument, c10::str("values in 0 ... ", end - 1),
       c10::str(least.item<int64_t>(), " ... ", largest.item<int64_t>()));
}

}  // namespace

BertImpl::BertImpl(const BertOptions& options_) : options(options_) { reset(); }

void BertImpl::reset() {
  const auto embedding = [this](const char* name, const torch::nn::EmbeddingOptions& embedding_options) {
    return register_module(name, torch::nn::Embedding(embedding_options));
  };
  const int64_t width = options.hidden_size();
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) fail(kBert, name, c10::str("at least ", least), c10::str(value));
  };
  at_least("hidden_size", width, 1);
  at_least("vocab_size", options.vocab_size(), 1);
  at_least("max_position_embeddings", options.max_position_embeddings(), 1);
  at_least("type_vocab_size", options.type_vocab_size(), 1);
  if (const auto id = options.pad_token_id(); id && (*id < 0 || *id >= options.vocab_size())) {
    fail(kBert, "pad_token_id", c10::str("0 ... ", options.vocab_size() - 1), c10::str(*id));
  }
  word_embeddings =
      embedding("word_embeddings",
                torch::nn::EmbeddingOptions(options.vocab_size(), width).padding_idx(options.pad_token_id()));
  position_embeddings = embedding("position_embeddings", {options.max_position_embeddings(), width});
  token_type_embeddings = embedding("token_type_embeddings", {options.type_vocab_size(), width});
  norm = register_module("norm", nn::Norm(nn::NormOptions(width).eps(options.layer_norm_eps())));
  encoder = register_module("encoder", nn::TransformerEncoder(nn::TransformerStackOptions(
                                           layer_options(options), options.num_hidden_layers())));
  if (options.pooler()) pooler = register_module("pooler", torch::nn::Linear(width, width));
}

void BertImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::models::Bert(vocab_size=" << options.vocab_size()
         << ", hidden_size=" << options.hidden_size() << ", num_hidden_layers=" << options.num_hidden_layers()
         << ")";
}

/// Checks the arguments of `forward`, and returns the embeddings of the tokens, [B, L, hidden_size].
torch::Tensor BertImpl::embed(const torch::Tensor& ids, const BertParams& params) {
  checks::check_strided(kBert, "ids", ids);
  const int64_t max_length = options.max_position_embeddings();
  if (ids.scalar_type() != at::kLong || ids.dim() != 2 || ids.size(1) > max_length) {
    fail(kBert, "ids", c10::str("int64 [B, L] with L of at most ", max_length), describe(ids));
  }
  check_device("ids", ids, word_embeddings->weight.device());
  if (params.attention_mask.defined()) check_like_ids("attention_mask", params.attention_mask, ids, true);
  if (params.token_type_ids.defined()) check_like_ids("token_type_ids", params.token_type_ids, ids, false);
  check_range("ids", ids, options.vocab_size());
  if (params.token_type_ids.defined())
    check_range("token_type_ids", params.token_type_ids, options.type_vocab_size());
  const auto types = params.token_type_ids.defined() ? params.token_type_ids : at::zeros_like(ids);
  const auto x = word_embeddings(ids) + token_type_embeddings(types) +
                 position_embeddings(at::arange(ids.size(1), ids.options()));
  return at::dropout(norm(x), options.dropout(), is_training());
}

torch::Tensor BertImpl::forward(const torch::Tensor& ids, const BertParams& params) {
  const auto x = embed(ids, params);  // which checks the arguments
  return encoder(x, masks_of(params));
}

torch::Tensor BertImpl::attention_weights(const torch::Tensor& ids, const BertParams& params) {
  auto x = embed(ids, params);
  const auto masks = masks_of(params);
  std::vector<torch::Tensor> weights;
  for (size_t n = 0; n < encoder->layers->size(); ++n) {
    const auto layer = encoder->layers->ptr<nn::TransformerEncoderLayerImpl>(n);
    weights.push_back(std::get<1>(
        layer->self_attn->forward_with_weights(x, {}, {}, masks, /*average_attn_weights=*/false)));
    x = layer->forward(x, masks);
  }
  return at::stack(weights);
}

torch::Tensor BertImpl::pooled(const torch::Tensor& hidden) {
  if (pooler.is_empty()) fail(kBert, "options", "a model with a pooler", "one without");
  return at::tanh(pooler(hidden.select(1, 0)));
}

torch::Tensor pool(const torch::Tensor& hidden, const torch::Tensor& attention_mask, Pooling pooling) {
  constexpr auto kPool = "models::pool";
  checks::check_strided(kPool, "hidden", hidden);
  checks::check_strided(kPool, "attention_mask", attention_mask);
  if (hidden.dim() != 3 || attention_mask.sizes() != hidden.sizes().slice(0, 2)) {
    fail(kPool, "attention_mask", "[B, L] for hidden states [B, L, E]",
         c10::str(describe(attention_mask), " for ", describe(hidden)));
  }
  const auto is_padding = (attention_mask == 0).unsqueeze(-1);
  switch (pooling) {
    case Pooling::cls:
      return hidden.select(1, 0);
    case Pooling::max:
      return hidden.masked_fill(is_padding, -std::numeric_limits<double>::infinity()).amax(1);
    default:
      return hidden.masked_fill(is_padding, 0).sum(1) / is_padding.logical_not().sum(1).clamp_min(1);
  }
}

}  // namespace attend::models
