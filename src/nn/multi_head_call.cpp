#include "nn/multi_head_call.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <attend/attention.h>

#include "nn/multi_head_masks.h"
#include "nn/multi_head_options.h"
#include "nn/multi_head_projections.h"

namespace attend::nn {
namespace {

/// Converts [L, B, width] to [B, L, width], and back. Returns a tensor of another layout unchanged.
torch::Tensor swap_batch(const MultiHeadAttentionOptions& options, const torch::Tensor& tensor) {
  return tensor.dim() == 3 && !options.batch_first() ? tensor.transpose(0, 1) : tensor;
}

/// The arguments of `attention`, and the dtype to which its result is converted.
struct Call {
  Heads heads;
  AttentionParams params;
  at::ScalarType result_dtype;

  void attend_to(const KVCache::Entries& entries) {
    heads.key = entries.key;
    heads.value = entries.value;
    params.mask = params.mask & entries.mask;
  }
};

/// Returns the positions of the queries; the last query has the position of the last key.
torch::Tensor last_positions(int64_t queries, int64_t keys, at::Device device) {
  return at::arange(keys - queries, keys, at::TensorOptions(at::kLong).device(device));
}

/// Sets up the call so that the query attends to the entries of the cache, without changing the cache.
void read_cache(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& query,
                Call& call) {
  auto& projected = call.heads.query = project_query(module, query);
  call.result_dtype = projected.scalar_type();
  call.attend_to(cache.entries());
  if (module.options.cosine_similarity()) projected = scaled_unit_query(module, projected);
  if (const auto& params = module.options.rotary()) {
    const auto positions = last_positions(projected.size(2), call.heads.key.size(2), projected.device());
    projected = rotary(projected, *params, positions);
  }
  projected = projected.to(call.heads.key.scalar_type());
}

/// Appends projected keys and values to the cache, after converting them to the dtype of the cache.
KVCache::Entries append_to(KVCache& cache, const KeyValue& projected, const torch::Tensor& lengths) {
  const auto dtype = cache.options().options().dtype();
  return cache.append(projected.key.to(dtype), projected.value.to(dtype), lengths);
}

/// Sets up the call so that the query attends to the given keys, or, if there is a cache, to its keys after
/// the given ones were appended.
void project_and_append(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& call_params,
                        const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                        Call& call) {
  auto* const cache = call_params.cache;
  auto& heads = call.heads = project_all(module, query, key, value);
  call.result_dtype = heads.query.scalar_type();
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
  if (cache == nullptr) return;
  call.attend_to(append_to(*cache, {heads.key, heads.value}, call_params.lengths));
  heads.query = heads.query.to(heads.key.scalar_type());
}

/// Prepares the arguments of `attention` from those of the module: projections, positions, cache and masks.
Call prepare(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
             const MultiHeadAttentionParams& params, double dropout_p) {
  const auto& options = module.options;
  // If inputs are the same tensor, they stay the same tensor, so that one product projects them.
  const auto query = swap_batch(options, inputs.query);
  const auto key = inputs.key.is_same(inputs.query) ? query : swap_batch(options, inputs.key);
  const auto value = inputs.value.is_same(inputs.key) ? key : swap_batch(options, inputs.value);

  const auto dtype = query_dtype(module, params);
  const Masks masks(module, params, score_shape(options, inputs, params), dtype, query.device());
  Call call{.heads = {}, .params = {}, .result_dtype = dtype};
  call.params.mask = masks.mask;
  call.params.score_mod = masks.score_mod;
  call.params.dropout_p = module.is_training() ? dropout_p : 0;
  if (options.cosine_similarity()) call.params.scale = 1;
  if (options.sinks()) call.params.sinks = beside_query(module.sinks, dtype);
  if (only_reads_cache(params)) {
    read_cache(module, *params.cache, query, call);
  } else {
    project_and_append(module, params, query, key, value, call);
  }
  return call;
}

torch::Tensor result_of(const MultiHeadAttentionImpl& module, const Call& call, int64_t query_dim) {
  const auto heads = attention(call.heads.query, call.heads.key, call.heads.value, call.params);
  return swap_batch(module.options, project_out(module, heads.to(call.result_dtype), query_dim));
}

}  // namespace

torch::Tensor run(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                  const MultiHeadAttentionParams& params, double dropout_p) {
  return result_of(module, prepare(module, inputs, params, dropout_p), inputs.query.dim());
}

std::tuple<torch::Tensor, torch::Tensor> run_with_weights(const MultiHeadAttentionImpl& module,
                                                          const AttentionInputs& inputs,
                                                          const MultiHeadAttentionParams& params,
                                                          bool average_attn_weights) {
  const auto call = prepare(module, inputs, params, module.options.dropout());
  const auto result = result_of(module, call, inputs.query.dim());
  auto weights = attention_weights(call.heads.query, call.heads.key, call.params);
  if (average_attn_weights) weights = weights.mean(1);
  return {result, inputs.query.dim() == 3 ? weights : weights.squeeze(0)};
}

void run_append(const MultiHeadAttentionImpl& module, KVCache& cache, const torch::Tensor& given_key,
                const torch::Tensor& given_value, const torch::Tensor& lengths) {
  const auto key = swap_batch(module.options, given_key);
  const auto value = given_value.is_same(given_key) ? key : swap_batch(module.options, given_value);
  auto heads = project_key_value(module, key, value);
  if (module.options.cosine_similarity()) heads.key = unit_key(heads.key);
  if (const auto& params = module.options.rotary()) {
    heads.key = rotary(heads.key, *params, cache.positions(heads.key.size(2), lengths));
  }
  append_to(cache, heads, lengths);
}

}  // namespace attend::nn
