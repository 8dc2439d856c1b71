#include "nn/multi_head_check.h"

#include <algorithm>
#include <vector>

#include "core/checks.h"
#include "core/error_context.h"
#include "functional/mask/check.h"
#include "nn/checks.h"
#include "nn/multi_head_options.h"

namespace attend::nn {
namespace {

using checks::describe;
using checks::fail;
using checks::in_function;

// ---- the module

/// Fails if an option was changed after construction to a value that the parameters do not fit.
void check_built(const MultiHeadAttentionImpl& module) {
  const auto& options = module.options;
  const int64_t queries = query_width(options), keys = kv_width(options), width = options.embed_dim();
  const auto has_sizes = [](const torch::Tensor& parameter, at::IntArrayRef sizes) {
    return parameter.defined() && parameter.sizes() == sizes;
  };
  const bool has_projections = is_packed(options)
                                   ? has_sizes(module.in_proj_weight, {queries + 2 * keys, width})
                                   : has_sizes(module.q_proj_weight, {queries, width}) &&
                                         has_sizes(module.k_proj_weight, {keys, options.kdim()}) &&
                                         has_sizes(module.v_proj_weight, {keys, options.vdim()});
  if (!has_projections || !has_sizes(module.out_proj->weight, {width, queries})) {
    fail(kMultiHeadAttention, "options", "the sizes at construction, which the parameters have",
         c10::str("embed_dim=", width, ", num_heads=", options.num_heads(),
                  ", num_kv_heads=", options.num_kv_heads(), ", head_dim=", options.head_dim(),
                  ", kdim=", options.kdim(), ", vdim=", options.vdim()));
  }
  const auto expect = [](const char* name, bool fits) { check_option(kMultiHeadAttention, name, fits); };
  const int64_t heads = options.num_heads();
  expect("options.bias", module.in_proj_bias.defined() == options.bias());
  expect("options.add_bias_kv", module.bias_k.defined() == options.add_bias_kv());
  expect("options.cosine_similarity",
         module.logit_scale.defined() == options.cosine_similarity() &&
             (!module.logit_scale.defined() || module.logit_scale.numel() == heads));
  expect("options.sinks", module.sinks.defined() == options.sinks() &&
                              (!module.sinks.defined() || module.sinks.numel() == heads));
  const auto& buckets = options.relative_bias();
  expect("options.relative_bias", buckets ? has_sizes(module.relative_bias, {buckets->count, heads})
                                          : !module.relative_bias.defined());
  check_probability(kMultiHeadAttention, "options.dropout", options.dropout());
}

// ---- inputs

/// Returns the length of an input in the layout of the options.
int64_t length_of(const MultiHeadAttentionOptions& options, const torch::Tensor& input) {
  return input.size(input.dim() == 3 && !options.batch_first() ? 0 : -2);
}

int64_t batch_of(const MultiHeadAttentionOptions& options, const torch::Tensor& input) {
  return input.dim() == 3 ? input.size(options.batch_first() ? 0 : 1) : 1;
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

// ---- caches

/// Fails unless the cache stores all keys that a query of the module attends to.
void check_cache_kind(const MultiHeadAttentionOptions& options, const KVCache& cache) {
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

/// Fails unless the cache has the batch size and the sizes of the module's keys and values, and a dtype and
/// device that the module can use.
void check_cache_sizes(const MultiHeadAttentionImpl& module, const KVCache& cache, int64_t batch) {
  const auto& sizes = cache.options();
  const int64_t heads = module.options.num_kv_heads(), head_dim = module.options.head_dim();
  if (sizes.batch() != batch || sizes.num_kv_heads() != heads || sizes.head_dim() != head_dim ||
      sizes.value_head_dim() != head_dim) {
    const auto values = sizes.value_head_dim() == sizes.head_dim()
                            ? std::string()
                            : c10::str(" (values of ", sizes.value_head_dim(), ")");
    fail(kMultiHeadAttention, "cache", c10::str("batch ", batch, ", ", heads, " heads of ", head_dim),
         c10::str("batch ", sizes.batch(), ", ", sizes.num_kv_heads(), " heads of ", sizes.head_dim(),
                  values));
  }
  const auto& weight = module.out_proj->weight;
  check_cache_dtype(module, "cache", c10::typeMetaToScalarType(sizes.options().dtype()));
  if (sizes.options().device() != weight.device()) {
    fail(kMultiHeadAttention, "cache", c10::str("a cache on the parameters' device ", weight.device()),
         c10::str(sizes.options().device()));
  }
}

/// Fails if key and value, which fit each other, can't be appended to the cache.
void check_append(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& key,
                  const torch::Tensor& value, const torch::Tensor& lengths) {
  check_no_gradient(kMultiHeadAttention, module, {key, value});
  check_cache_sizes(module, cache, batch_of(module.options, key));
  in_function(kMultiHeadAttention, {}, [&] { cache.num_keys(length_of(module.options, key), lengths); });
}

/// Checks a call that appends its keys to a cache.
void check_appending_call(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                          const MultiHeadAttentionParams& params) {
  const auto& options = module.options;
  const int64_t queries = length_of(options, inputs.query);
  if (length_of(options, inputs.key) != queries) {
    fail(kMultiHeadAttention, "key",
         c10::str("the length of query, ", queries, ", with a cache to append to"), describe(inputs.key));
  }
  if (params.key_padding_mask.defined()) {
    fail(kMultiHeadAttention, "key_padding_mask", "none with a cache to append to; use lengths",
         describe(params.key_padding_mask));
  }
  if (!options.is_causal() && !params.is_causal) {
    fail(kMultiHeadAttention, "cache", "is_causal(true), since appended keys are masked causally",
         "is_causal(false)");
  }
  check_append(module, *params.cache, inputs.key, inputs.value, params.lengths);
}

// ---- masks

/// Checks the dtype and device of a mask in the convention of torch.nn, and fails unless it `has_shape`.
void check_torch_mask(const char* argument, const torch::Tensor& mask, bool has_shape,
                      const std::string& shape, const MultiHeadAttentionImpl& module, at::ScalarType dtype) {
  checks::check_strided(kMultiHeadAttention, argument, mask);
  if (!has_shape || !(mask.scalar_type() == at::kBool || mask.is_floating_point())) {
    fail(kMultiHeadAttention, argument, c10::str("a boolean or floating tensor ", shape), describe(mask));
  }
  const auto& weight = module.out_proj->weight;
  const auto got = mask.scalar_type();
  if (got != at::kBool && got != at::kFloat && got != dtype && got != weight.scalar_type()) {
    fail(kMultiHeadAttention, argument,
         dtype == at::kFloat ? "a mask of dtype bool or float32"
                             : c10::str("a mask of dtype bool, float32 or ", checks::dtype_name(dtype)),
         describe(mask));
  }
  checks::check_device(kMultiHeadAttention, argument, mask, weight.device());
}

void check_attn_mask(const MultiHeadAttentionImpl& module, const torch::Tensor& mask, const ScoreShape& shape,
                     at::ScalarType dtype) {
  checks::check_strided(kMultiHeadAttention, "attn_mask", mask);
  const int64_t rows = shape.batch * shape.heads;
  const bool has_shape = mask.sizes().equals({shape.queries, shape.keys}) ||
                         mask.sizes().equals({rows, shape.queries, shape.keys});
  check_torch_mask("attn_mask", mask, has_shape,
                   c10::str("[", shape.queries, ", ", shape.keys, "] or [", rows, ", ", shape.queries, ", ",
                            shape.keys, "]"),
                   module, dtype);
}

}  // namespace

void check_key_padding_mask(const MultiHeadAttentionImpl& module, const torch::Tensor& mask,
                            const ScoreShape& shape, int64_t query_dim, at::ScalarType dtype) {
  checks::check_strided(kMultiHeadAttention, "key_padding_mask", mask);
  const std::vector<int64_t> expected =
      query_dim == 3 ? std::vector{shape.batch, shape.keys} : std::vector{shape.keys};
  check_torch_mask("key_padding_mask", mask, mask.sizes().equals(expected),
                   c10::str(at::IntArrayRef(expected)), module, dtype);
}

void check_cache_dtype(const MultiHeadAttentionImpl& module, const char* argument, at::ScalarType dtype) {
  const auto own = module.out_proj->weight.scalar_type();
  if ((dtype == at::kDouble) == (own == at::kDouble)) return;
  fail(kMultiHeadAttention, argument,
       own == at::kDouble
           ? "float64, the dtype of the parameters"
           : c10::str("a dtype other than float64, for parameters of ", checks::dtype_name(own)),
       checks::dtype_name(dtype));
}

void check_append_call(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& key,
                       const torch::Tensor& value, const torch::Tensor& lengths) {
  check_built(module);
  check_cache_kind(module.options, cache);
  check_key_value(module, key, value, {"key", key, module.options.batch_first()});
  check_append(module, cache, key, value, lengths);
}

void check_call(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                const MultiHeadAttentionParams& params) {
  check_built(module);
  const auto& options = module.options;
  const auto& weight = module.out_proj->weight;
  const FirstInput first{"query", inputs.query, options.batch_first()};
  check_input(kMultiHeadAttention, "query", inputs.query, options.embed_dim(), first, weight);
  if (params.lengths.defined() && !appends_to_cache(params)) {
    fail(kMultiHeadAttention, "lengths", "none without a cache to append to", describe(params.lengths));
  }
  if (params.cache != nullptr) check_cache_kind(options, *params.cache);
  if (only_reads_cache(params)) {
    check_cache_sizes(module, *params.cache, batch_of(options, inputs.query));
  } else {
    check_key_value(module, inputs.key, inputs.value, first);
  }
  if (appends_to_cache(params)) check_appending_call(module, inputs, params);

  const auto shape = score_shape(options, inputs, params);
  const auto dtype = query_dtype(module, params);
  in_function(kMultiHeadAttention, kMaskNames,
              [&] { check_mask(kMultiHeadAttention, params.mask, shape, /*query_dim=*/4, weight.device()); });
  if (params.key_padding_mask.defined()) {
    check_key_padding_mask(module, params.key_padding_mask, shape, inputs.query.dim(), dtype);
  }
  if (params.attn_mask.defined()) check_attn_mask(module, params.attn_mask, shape, dtype);
}

ScoreShape score_shape(const MultiHeadAttentionOptions& options, const AttentionInputs& inputs,
                       const MultiHeadAttentionParams& params) {
  const int64_t batch = batch_of(options, inputs.query), queries = length_of(options, inputs.query);
  const auto* const cache = params.cache;
  if (cache == nullptr) return {batch, options.num_heads(), queries, length_of(options, inputs.key)};
  int64_t keys = cache->num_keys(params.update_cache ? queries : 0, params.lengths);
  // Without queries, `append` returns fewer than all keys.
  if (params.update_cache && queries == 0 && cache->options().window() > 0) {
    keys = std::min(keys, cache->options().window() - 1);
  }
  return {batch, options.num_heads(), queries, keys};
}

at::ScalarType query_dtype(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params) {
  if (params.cache != nullptr) return c10::typeMetaToScalarType(params.cache->options().options().dtype());
  return linear_dtype(module.out_proj->weight);
}

}  // namespace attend::nn
