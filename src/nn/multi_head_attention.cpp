#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <attend/attention.h>
#include <attend/nn/multi_head_attention.h>
#include <torch/nn/init.h>

#include <cmath>
#include <ostream>

#include "core/checks.h"
#include "functional/mask/check.h"
#include "nn/checks.h"
#include "nn/multi_head_masks.h"
#include "nn/multi_head_options.h"
#include "nn/multi_head_projections.h"

namespace attend::nn {
namespace {

using checks::describe;
using checks::fail;

// ---- checks

/// Fails unless the module may use the cache: it stores all that a query attends to.
void check_cache(const MultiHeadAttentionOptions& options, const KVCache& cache) {
  if (num_extra_keys(options) > 0) {
    fail(kMultiHeadAttention, "cache", "none with add_bias_kv or add_zero_attn", "a KVCache");
  }
  const int64_t window = cache.options().window(), needed = options.window().left + 1;
  if (window > 0 && (needed == 0 || needed > window)) {
    fail(kMultiHeadAttention, "cache",
         needed == 0 ? std::string("a cache without a window") : c10::str("a window of at least ", needed),
         c10::str("a window of ", window));
  }
}

/// Fails unless the cache has the sizes of projected queries or keys [B, H, L, D].
void check_cache_sizes(const MultiHeadAttentionOptions& options, const KVCache& cache,
                       const torch::Tensor& projected) {
  const auto& sizes = cache.options();
  const int64_t batch = projected.size(0), heads = options.num_kv_heads(), head_dim = options.head_dim();
  if (sizes.batch() == batch && sizes.num_kv_heads() == heads && sizes.head_dim() == head_dim &&
      sizes.value_head_dim() == head_dim) {
    return;
  }
  const auto values = sizes.value_head_dim() == sizes.head_dim()
                          ? std::string()
                          : c10::str(" (values of ", sizes.value_head_dim(), ")");
  fail(kMultiHeadAttention, "cache", c10::str("batch ", batch, ", ", heads, " heads of ", head_dim),
       c10::str("batch ", sizes.batch(), ", ", sizes.num_kv_heads(), " heads of ", sizes.head_dim(), values));
}

bool appends_to_cache(const MultiHeadAttentionParams& params) {
  return params.cache != nullptr && params.update_cache;
}

bool only_reads_cache(const MultiHeadAttentionParams& params) {
  return params.cache != nullptr && !params.update_cache;
}

/// The length of an input in the layout of the options.
int64_t length_of(const MultiHeadAttentionOptions& options, const torch::Tensor& input) {
  return input.size(input.dim() == 3 && !options.batch_first() ? 0 : -2);
}

/// Checks a call that appends `key` to a cache.
void check_append(const MultiHeadAttentionOptions& options, const torch::Tensor& query,
                  const torch::Tensor& key, const MultiHeadAttentionParams& params) {
  const int64_t queries = length_of(options, query);
  if (length_of(options, key) != queries) {
    fail(kMultiHeadAttention, "key",
         c10::str("the length of query, ", queries, ", with a cache to append to"), describe(key));
  }
  if (params.key_padding_mask.defined()) {
    fail(kMultiHeadAttention, "key_padding_mask", "none with a cache to append to; use lengths",
         describe(params.key_padding_mask));
  }
  if (!options.is_causal() && !params.is_causal) {
    fail(kMultiHeadAttention, "cache", "is_causal(true), since appended keys are masked causally",
         "is_causal(false)");
  }
}

/// Checks key and value of a call or of `append`, whose first input is `first`.
void check_key_value(const MultiHeadAttentionImpl& module, const torch::Tensor& key,
                     const torch::Tensor& value, const FirstInput& first) {
  const auto& options = module.options;
  check_input(kMultiHeadAttention, "key", key, options.kdim(), first, module.out_proj->weight);
  check_input(kMultiHeadAttention, "value", value, options.vdim(), first, module.out_proj->weight);
  const int64_t keys = length_of(options, key);
  if (length_of(options, value) != keys) {
    fail(kMultiHeadAttention, "value", c10::str("the length of key, ", keys), describe(value));
  }
}

void check_call(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& key,
                const torch::Tensor& value, const MultiHeadAttentionParams& params) {
  const auto& options = module.options;
  const FirstInput first{"query", query, options.batch_first()};
  check_input(kMultiHeadAttention, "query", query, options.embed_dim(), first, module.out_proj->weight);
  if (params.lengths.defined() && !appends_to_cache(params)) {
    fail(kMultiHeadAttention, "lengths", "none without a cache to append to", describe(params.lengths));
  }
  if (params.cache != nullptr) check_cache(options, *params.cache);
  if (only_reads_cache(params)) return;
  check_key_value(module, key, value, first);
  if (appends_to_cache(params)) check_append(options, query, key, params);
}

// ---- a call

/// [L, B, width] as [B, L, width]; other layouts are left as they are. Converts the result back, too.
torch::Tensor swap_batch(const MultiHeadAttentionOptions& options, const torch::Tensor& tensor) {
  return tensor.dim() == 3 && !options.batch_first() ? tensor.transpose(0, 1) : tensor;
}

/// The arguments of `attention`.
struct Call {
  Heads heads;
  AttentionParams params;

  void attend_to(const KVCache::Entries& entries) {
    heads.key = entries.key;
    heads.value = entries.value;
    params.mask = params.mask & entries.mask;
  }
};

/// The positions of the queries, the last of which is that of the last key.
torch::Tensor last_positions(int64_t queries, int64_t keys, at::Device device) {
  return at::arange(keys - queries, keys, at::TensorOptions(at::kLong).device(device));
}

/// Lets the query attend to the entries of the cache, which is not changed.
void read_cache(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& query,
                Call& call) {
  auto& projected = call.heads.query = project_query(module, query);
  check_cache_sizes(module.options, cache, projected);
  call.attend_to(cache.entries());
  if (module.options.cosine_similarity()) projected = scaled_unit_query(module, projected);
  if (const auto& params = module.options.rotary()) {
    const auto positions = last_positions(projected.size(2), call.heads.key.size(2), projected.device());
    projected = rotary(projected, *params, positions);
  }
}

/// Lets the query attend to the keys, which are first appended to the cache if there is one.
void project_and_append(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& call_params,
                        const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                        Call& call) {
  auto* const cache = call_params.cache;
  auto& heads = call.heads = project_all(module, query, key, value);
  if (cache != nullptr) check_cache_sizes(module.options, *cache, heads.key);
  if (module.options.cosine_similarity()) {
    heads.query = scaled_unit_query(module, heads.query);
    heads.key = unit_key(heads.key);
  }
  if (const auto& params = module.options.rotary()) {
    const int64_t queries = heads.query.size(2), keys = heads.key.size(2);
    const auto positions = cache != nullptr ? cache->positions(keys, call_params.lengths)
                                            : last_positions(queries, keys, heads.query.device());
    heads.query = rotary(heads.query, *params, positions);
    heads.key = rotary(heads.key, *params, cache != nullptr ? positions : torch::Tensor());
  }
  append_extra_keys(module, heads);
  if (cache != nullptr) call.attend_to(cache->append(heads.key, heads.value, call_params.lengths));
}

/// The sizes of the scores before the cache is appended to, without extra keys.
ScoreShape score_shape(const MultiHeadAttentionImpl& module, const torch::Tensor& query,
                       const torch::Tensor& key, const MultiHeadAttentionParams& params) {
  const auto* const cache = params.cache;
  const int64_t queries = query.size(-2), keys = cache == nullptr ? key.size(-2)
                                                 : params.update_cache
                                                     ? cache->num_keys(queries, params.lengths)
                                                     : cache->num_keys(0);
  return {query.dim() == 3 ? query.size(0) : 1, module.options.num_heads(), queries, keys};
}

/// Everything but the attention itself. An undefined key is the query, an undefined value the key.
Call prepare(const MultiHeadAttentionImpl& module, const torch::Tensor& given_query,
             const torch::Tensor& given_key, const torch::Tensor& given_value,
             const MultiHeadAttentionParams& params) {
  const auto& options = module.options;
  const auto& key_or_query = given_key.defined() ? given_key : given_query;
  const auto& value_or_key = given_value.defined() ? given_value : key_or_query;
  check_call(module, given_query, key_or_query, value_or_key, params);
  // Inputs that are one tensor stay one tensor: they share a product.
  const auto query = swap_batch(options, given_query);
  const auto key = key_or_query.is_same(given_query) ? query : swap_batch(options, key_or_query);
  const auto value = value_or_key.is_same(key_or_query) ? key : swap_batch(options, value_or_key);

  const auto shape = score_shape(module, query, key, params);
  const Masks masks(module, params, shape, query.dim(), query.device());
  Call call;
  call.params.mask = masks.mask;
  call.params.score_mod = masks.score_mod;
  call.params.dropout_p = module.is_training() ? options.dropout() : 0;
  if (options.cosine_similarity()) call.params.scale = 1;
  if (options.sinks()) call.params.sinks = module.sinks;
  if (appends_to_cache(params) &&
      masks.mask.defined()) {  // `attention` would check it after the cache has grown
    check_mask("attention", masks.mask, shape, /*query_dim=*/4, query.device());
  }
  if (only_reads_cache(params)) {
    read_cache(module, *params.cache, query, call);
  } else {
    project_and_append(module, params, query, key, value, call);
  }
  return call;
}

torch::Tensor result_of(const MultiHeadAttentionImpl& module, const Call& call, int64_t query_dim) {
  const auto heads = attention(call.heads.query, call.heads.key, call.heads.value, call.params);
  return swap_batch(module.options, project_out(module, heads, query_dim));
}

}  // namespace

MultiHeadAttentionImpl::MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options_)
    : options(completed(options_)) {
  reset();
}

void MultiHeadAttentionImpl::reset() {
  const int64_t queries = query_width(options), keys = kv_width(options);
  const auto parameter = [&](const char* name, at::IntArrayRef sizes) {
    return register_parameter(name, at::empty(sizes));
  };
  if (is_packed(options)) {
    in_proj_weight = parameter("in_proj_weight", {queries + 2 * keys, options.embed_dim()});
  } else {
    q_proj_weight = parameter("q_proj_weight", {queries, options.embed_dim()});
    k_proj_weight = parameter("k_proj_weight", {keys, options.kdim()});
    v_proj_weight = parameter("v_proj_weight", {keys, options.vdim()});
  }
  if (options.bias()) in_proj_bias = parameter("in_proj_bias", {queries + 2 * keys});
  if (options.add_bias_kv()) {
    bias_k = parameter("bias_k", {1, 1, keys});
    bias_v = parameter("bias_v", {1, 1, keys});
  }
  if (options.cosine_similarity()) logit_scale = parameter("logit_scale", {options.num_heads()});
  if (const auto& buckets = options.relative_bias()) {
    relative_bias = parameter("relative_bias", {buckets->count, options.num_heads()});
  }
  if (options.sinks()) sinks = parameter("sinks", {options.num_heads()});
  out_proj = register_module(
      "out_proj",
      torch::nn::Linear(torch::nn::LinearOptions(queries, options.embed_dim()).bias(options.bias())));
  reset_parameters();
}

void MultiHeadAttentionImpl::reset_parameters() {
  namespace init = torch::nn::init;
  for (auto& weight : {in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight}) {
    if (weight.defined()) init::xavier_uniform_(weight);
  }
  out_proj->reset_parameters();
  if (options.bias()) {
    init::zeros_(in_proj_bias);
    init::zeros_(out_proj->bias);
  }
  if (options.add_bias_kv()) {
    init::xavier_normal_(bias_k);
    init::xavier_normal_(bias_v);
  }
  if (options.cosine_similarity()) init::constant_(logit_scale, std::log(10.0));  // Liu 2021
  if (options.relative_bias()) {                                                  // Raffel 2020
    init::normal_(relative_bias, 0, 1 / std::sqrt(static_cast<double>(options.embed_dim())));
  }
  if (options.sinks()) init::zeros_(sinks);  // Miller 2023
}

void MultiHeadAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::MultiHeadAttention(";
  print(stream, options);
  stream << ")";
}

torch::Tensor MultiHeadAttentionImpl::forward(const torch::Tensor& query, const torch::Tensor& key,
                                              const torch::Tensor& value,
                                              const MultiHeadAttentionParams& params) {
  return result_of(*this, prepare(*this, query, key, value, params), query.dim());
}

std::tuple<torch::Tensor, torch::Tensor> MultiHeadAttentionImpl::forward_with_weights(
    const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
    const MultiHeadAttentionParams& params, bool average_attn_weights) {
  const auto call = prepare(*this, query, key, value, params);
  const auto result = result_of(*this, call, query.dim());
  auto weights = attention_weights(call.heads.query, call.heads.key, call.params);
  if (average_attn_weights) weights = weights.mean(1);
  return {result, query.dim() == 3 ? weights : weights.squeeze(0)};
}

KVCache MultiHeadAttentionImpl::make_cache(int64_t batch, int64_t capacity) const {
  if (num_extra_keys(options) > 0) {
    fail(kMultiHeadAttention, "make_cache", "neither add_bias_kv nor add_zero_attn", "one of them");
  }
  const int64_t window = options.window().left + 1;
  const bool is_windowed = window > 0 && window < capacity;
  return KVCache(KVCacheOptions(options.num_kv_heads(), options.head_dim())
                     .batch(batch)
                     .capacity(is_windowed ? window : capacity)
                     .window(is_windowed ? window : 0)
                     .options(out_proj->weight.options().requires_grad(false)));
}

void MultiHeadAttentionImpl::append(KVCache& cache, const torch::Tensor& given_key,
                                    const torch::Tensor& given_value, const torch::Tensor& lengths) {
  const auto& value_or_key = given_value.defined() ? given_value : given_key;
  check_cache(options, cache);
  check_key_value(*this, given_key, value_or_key, {"key", given_key, options.batch_first()});
  const auto key = swap_batch(options, given_key);
  const auto value = value_or_key.is_same(given_key) ? key : swap_batch(options, value_or_key);
  auto heads = project_key_value(*this, key, value);
  check_cache_sizes(options, cache, heads.key);
  if (options.cosine_similarity()) heads.key = unit_key(heads.key);
  if (const auto& params = options.rotary()) {
    heads.key = rotary(heads.key, *params, cache.positions(heads.key.size(2), lengths));
  }
  cache.append(heads.key, heads.value, lengths);
}

}  // namespace attend::nn
