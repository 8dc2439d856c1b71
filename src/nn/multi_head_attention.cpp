#include <ATen/ops/empty.h>
#include <attend/nn/multi_head_attention.h>
#include <torch/nn/init.h>

#include <cmath>
#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "nn/multi_head_call.h"
#include "nn/multi_head_options.h"

namespace attend::nn {

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

void MultiHeadAttentionImpl::check(const torch::Tensor& query, const torch::Tensor& key,
                                   const torch::Tensor& value, const MultiHeadAttentionParams& params) const {
  check_call(*this, {query, key, value}, params);
}

torch::Tensor MultiHeadAttentionImpl::forward(const torch::Tensor& query, const torch::Tensor& key,
                                              const torch::Tensor& value,
                                              const MultiHeadAttentionParams& params) {
  check(query, key, value, params);
  return run(*this, {query, key, value}, params, options.dropout());
}

std::tuple<torch::Tensor, torch::Tensor> MultiHeadAttentionImpl::forward_with_weights(
    const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
    const MultiHeadAttentionParams& params, bool average_attn_weights) {
  check(query, key, value, params);
  return run_with_weights(*this, {query, key, value}, params, average_attn_weights);
}

KVCache MultiHeadAttentionImpl::make_cache(int64_t batch, int64_t capacity,
                                           std::optional<at::ScalarType> dtype) const {
  if (num_extra_keys(options) > 0) {
    checks::fail(kMultiHeadAttention, "make_cache", "neither add_bias_kv nor add_zero_attn", "one of them");
  }
  const int64_t window = options.window().left + 1;
  const bool is_windowed = window > 0 && window < capacity;
  const auto& weight = out_proj->weight;
  check_cache_dtype(*this, "dtype", dtype.value_or(weight.scalar_type()));
  return checks::in_function(kMultiHeadAttention, {}, [&] {
    return KVCache(
        KVCacheOptions(options.num_kv_heads(), options.head_dim())
            .batch(batch)
            .capacity(is_windowed ? window : capacity)
            .window(is_windowed ? window : 0)
            .options(weight.options().requires_grad(false).dtype(dtype.value_or(weight.scalar_type()))));
  });
}

void MultiHeadAttentionImpl::append(KVCache& cache, const torch::Tensor& key, const torch::Tensor& value,
                                    const torch::Tensor& lengths) {
  const auto& value_or_key = value.defined() ? value : key;
  check_append_call(*this, cache, key, value_or_key, lengths);
  run_append(*this, cache, key, value_or_key, lengths);
}

}  // namespace attend::nn
