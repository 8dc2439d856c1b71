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
#include "nn/l2_norm.h"
#include "nn/onednn_linear.h"

namespace attend::nn {
namespace {

using checks::describe;
using checks::fail;

constexpr auto kMultiHeadAttention = "nn::MultiHeadAttention";
constexpr double kLargestLogitScale = 4.605170185988092;  // ln 100, as in Liu 2021
constexpr double kUnitEps = 1e-24;  // a length of 1e-12, as torch.nn.functional.normalize

/// The options with every default in its place.
MultiHeadAttentionOptions completed(MultiHeadAttentionOptions options) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) fail(kMultiHeadAttention, name, c10::str("at least ", least), c10::str(value));
  };
  at_least("embed_dim", options.embed_dim(), 1);
  at_least("num_heads", options.num_heads(), 1);
  if (options.num_kv_heads() == 0) options.num_kv_heads(options.num_heads());
  at_least("num_kv_heads", options.num_kv_heads(), 1);
  if (options.num_heads() % options.num_kv_heads() != 0) {
    fail(kMultiHeadAttention, "num_kv_heads",
         c10::str("a number that divides num_heads, ", options.num_heads()),
         c10::str(options.num_kv_heads()));
  }
  if (options.kdim() == 0) options.kdim(options.embed_dim());
  if (options.vdim() == 0) options.vdim(options.embed_dim());
  at_least("kdim", options.kdim(), 1);
  at_least("vdim", options.vdim(), 1);
  if (options.head_dim() == 0) {
    if (options.embed_dim() % options.num_heads() != 0) {
      fail(kMultiHeadAttention, "num_heads",
           c10::str("a number that divides embed_dim, ", options.embed_dim(), ", or a head_dim"),
           c10::str(options.num_heads()));
    }
    options.head_dim(options.embed_dim() / options.num_heads());
  }
  at_least("head_dim", options.head_dim(), 1);
  at_least("window.left", options.window().left, -1);
  at_least("window.right", options.window().right, -1);
  if (options.softcap() != 0) softcap(options.softcap());  // or its error
  check_probability(kMultiHeadAttention, "dropout", options.dropout());
  if (const auto& buckets = options.relative_bias()) relative_bucket(0, *buckets);  // or its error
  if (const auto& rotary = options.rotary()) {
    if (rotary->dims == 0 && options.head_dim() % 2 != 0) {
      fail(kMultiHeadAttention, "head_dim", "an even number with rotary", c10::str(options.head_dim()));
    }
    rotary_frequencies(options.head_dim(), *rotary);  // or its error
  }
  return options;
}

/// The widths of the inputs are one, and so the three projections are one parameter.
bool is_packed(const MultiHeadAttentionOptions& options) {
  return options.kdim() == options.embed_dim() && options.vdim() == options.embed_dim();
}

int64_t query_rows(const MultiHeadAttentionOptions& options) {
  return options.num_heads() * options.head_dim();
}

int64_t kv_rows(const MultiHeadAttentionOptions& options) {
  return options.num_kv_heads() * options.head_dim();
}

// ---- projections

/// A run of rows of the projections of queries, keys and values, which stand one under the other.
struct Rows {
  int64_t first, count;
};

/// [B, L, width] or [L, width] -> [B, H, L, D]; `own_weight`: these rows, where they are a parameter by
/// themselves.
torch::Tensor project(const MultiHeadAttentionImpl& module, const torch::Tensor& input, const Rows& rows,
                      const torch::Tensor& own_weight = {}) {
  const auto weight =
      own_weight.defined() ? own_weight : module.in_proj_weight.narrow(0, rows.first, rows.count);
  const auto bias =
      module.in_proj_bias.defined() ? module.in_proj_bias.narrow(0, rows.first, rows.count) : torch::Tensor();
  const auto heads =
      linear(input, weight, bias).unflatten(-1, {-1, module.options.head_dim()}).transpose(-3, -2);
  return heads.dim() == 4 ? heads : heads.unsqueeze(0);
}

torch::Tensor project_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query) {
  return project(module, query, {0, query_rows(module.options)}, module.q_proj_weight);
}

struct KeyValue {
  torch::Tensor key, value;
};

KeyValue project_key_value(const MultiHeadAttentionImpl& module, const torch::Tensor& key,
                           const torch::Tensor& value) {
  const int64_t first = query_rows(module.options), count = kv_rows(module.options);
  if (is_packed(module.options) && key.is_same(value)) {
    const auto both = project(module, key, {first, 2 * count}).chunk(2, 1);
    return {both[0], both[1]};
  }
  return {project(module, key, {first, count}, module.k_proj_weight),
          project(module, value, {first + count, count}, module.v_proj_weight)};
}

/// What attends and is attended to: [B, H, L, D].
struct Heads {
  torch::Tensor query, key, value;
};

Heads project_all(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& key,
                  const torch::Tensor& value) {
  if (is_packed(module.options) && query.is_same(key) && key.is_same(value)) {
    const int64_t heads = module.options.num_heads(), kv_heads = module.options.num_kv_heads();
    const auto all = project(module, query, {0, module.in_proj_weight.size(0)});
    const auto parts = all.split_with_sizes({heads, kv_heads, kv_heads}, 1);
    return {parts[0], parts[1], parts[2]};
  }
  const auto [projected_key, projected_value] = project_key_value(module, key, value);
  return {project_query(module, query), projected_key, projected_value};
}

/// The query times its head's temperature, so that the scores need no other scale.
torch::Tensor unit_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query) {
  const auto scale = module.logit_scale.clamp_max(kLargestLogitScale).exp().view({-1, 1, 1});
  return l2_norm(query, kUnitEps) * scale.to(query.scalar_type());
}

// ---- masks

/// `what`: boolean, true = must not attend, or floating, added; it broadcasts to the scores.
void hide_or_add(const torch::Tensor& what, AttentionParams& params) {
  if (what.scalar_type() == at::kBool) {
    params.mask = params.mask & dense(what.logical_not());
  } else {
    params.score_mod = params.score_mod.then(bias(what));
  }
}

void check_mask(const char* argument, const torch::Tensor& mask, bool has_shape, const std::string& shape) {
  checks::is_strided(kMultiHeadAttention, argument, mask);
  if (!has_shape || !(mask.scalar_type() == at::kBool || mask.is_floating_point())) {
    fail(kMultiHeadAttention, argument, c10::str("a boolean or floating tensor ", shape), describe(mask));
  }
}

/// [B, Lk], or [Lk] for a query of two dimensions.
void apply_key_padding_mask(const torch::Tensor& mask, const ScoreShape& shape, int64_t query_dim,
                            AttentionParams& params) {
  if (!mask.defined()) return;
  const std::vector<int64_t> expected =
      query_dim == 3 ? std::vector{shape.batch, shape.keys} : std::vector{shape.keys};
  check_mask("key_padding_mask", mask, mask.sizes().equals(expected), c10::str(at::IntArrayRef(expected)));
  hide_or_add(mask.reshape({shape.batch, 1, 1, shape.keys}), params);
}

/// [Lq, Lk] or [B * H, Lq, Lk].
void apply_attn_mask(const torch::Tensor& mask, const ScoreShape& shape, AttentionParams& params) {
  if (!mask.defined()) return;
  const int64_t rows = shape.batch * shape.heads;
  const bool for_all = mask.sizes().equals({shape.queries, shape.keys});
  check_mask("attn_mask", mask, for_all || mask.sizes().equals({rows, shape.queries, shape.keys}),
             c10::str("[", shape.queries, ", ", shape.keys, "] or [", rows, ", ", shape.queries, ", ",
                      shape.keys, "]"));
  hide_or_add(for_all ? mask : mask.unflatten(0, {shape.batch, shape.heads}), params);
}

/// The module's own mask. With a cache that tokens are appended to, the cache's is causal already, and sees
/// to its window.
Mask own_mask(const MultiHeadAttentionOptions& options, const MultiHeadAttentionInputs& inputs) {
  if (inputs.cache != nullptr && !inputs.appends) return {};
  const auto& window = options.window();
  const bool appends = inputs.cache != nullptr;
  const bool is_causal = options.is_causal() || inputs.is_causal;
  const Mask causal = is_causal && !appends ? attend::causal() : Mask();
  const bool is_bounded = window.left >= 0 || (window.right >= 0 && !appends);
  const bool is_seen_to = appends && inputs.cache->options().window() == window.left + 1;
  return is_bounded && !is_seen_to ? causal & attend::window(window.left, window.right) : causal;
}

/// Before the masks that are added.
ScoreMod own_score_mod(const MultiHeadAttentionImpl& module, at::Device device) {
  const auto& options = module.options;
  ScoreMod own;
  if (options.softcap() != 0) own = softcap(options.softcap());
  if (options.alibi()) own = own.then(alibi(alibi_slopes(options.num_heads()).to(device)));
  if (const auto& buckets = options.relative_bias()) {
    own = own.then(attend::relative_bias(module.relative_bias, *buckets));
  }
  return own;
}

void check_cache(const MultiHeadAttentionOptions& options, const KVCache& cache) {
  const int64_t window = cache.options().window(), needed = options.window().left + 1;
  if (window > 0 && (needed == 0 || needed > window)) {
    fail(kMultiHeadAttention, "cache",
         needed == 0 ? std::string("one without a window") : c10::str("a window of at least ", needed),
         c10::str(window));
  }
}

/// `projected`: queries or keys of the call, [B, H, L, D].
void check_fits(const MultiHeadAttentionOptions& options, const KVCache& cache,
                const torch::Tensor& projected) {
  const auto& layout = cache.options();
  const int64_t batch = projected.size(0), heads = options.num_kv_heads(), head_dim = options.head_dim();
  if (layout.batch() == batch && layout.num_kv_heads() == heads && layout.head_dim() == head_dim &&
      layout.value_head_dim() == head_dim) {
    return;
  }
  const auto values = layout.value_head_dim() == layout.head_dim()
                          ? std::string()
                          : c10::str(" (values of ", layout.value_head_dim(), ")");
  fail(kMultiHeadAttention, "cache", c10::str("one of batch ", batch, ", ", heads, " heads of ", head_dim),
       c10::str("batch ", layout.batch(), ", ", layout.num_kv_heads(), " heads of ", layout.head_dim(),
                values));
}

// ---- a call

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

/// Positions of the queries, which end where the keys end.
torch::Tensor last_positions(int64_t queries, int64_t keys, at::Device device) {
  return at::arange(keys - queries, keys, at::TensorOptions(at::kLong).device(device));
}

/// The query attends to what the cache holds, and leaves it as it is.
void read(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& query,
          Call& call) {
  auto& projected = call.heads.query = project_query(module, query);
  check_fits(module.options, cache, projected);
  call.attend_to(cache.entries());
  if (module.options.qk_norm()) projected = unit_query(module, projected);
  if (const auto& params = module.options.rotary()) {
    const auto positions = last_positions(projected.size(2), call.heads.key.size(2), projected.device());
    projected = rotary(projected, *params, positions);
  }
}

/// The query attends to the key, and to what the cache holds, to which the key is appended.
void read_and_append(const MultiHeadAttentionImpl& module, const MultiHeadAttentionInputs& inputs,
                     const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                     Call& call) {
  auto& heads = call.heads = project_all(module, query, key, value);
  if (inputs.cache != nullptr) check_fits(module.options, *inputs.cache, heads.key);
  if (module.options.qk_norm()) {
    heads.query = unit_query(module, heads.query);
    heads.key = l2_norm(heads.key, kUnitEps);
  }
  if (const auto& params = module.options.rotary()) {
    const int64_t queries = heads.query.size(2), keys = heads.key.size(2);
    const auto positions = inputs.cache != nullptr ? inputs.cache->positions(keys, inputs.counts)
                                                   : last_positions(queries, keys, heads.query.device());
    heads.query = rotary(heads.query, *params, positions);
    heads.key = rotary(heads.key, *params, inputs.cache != nullptr ? positions : torch::Tensor());
  }
  if (inputs.cache != nullptr) call.attend_to(inputs.cache->append(heads.key, heads.value, inputs.counts));
}

void check_inputs(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& key,
                  const torch::Tensor& value, const MultiHeadAttentionInputs& inputs) {
  const auto& options = module.options;
  const FirstInput first{"query", query};
  check_input(kMultiHeadAttention, "query", query, options.embed_dim(), first, module.out_proj->weight);
  const bool appends = inputs.cache != nullptr && inputs.appends;
  if (inputs.counts.defined() && !appends) {
    fail(kMultiHeadAttention, "counts", "none without a cache to append to", describe(inputs.counts));
  }
  if (inputs.cache != nullptr) check_cache(options, *inputs.cache);
  if (inputs.cache != nullptr && !appends) return;
  check_input(kMultiHeadAttention, "key", key, options.kdim(), first, module.out_proj->weight);
  check_input(kMultiHeadAttention, "value", value, options.vdim(), first, module.out_proj->weight);
  if (value.size(-2) != key.size(-2)) {
    fail(kMultiHeadAttention, "value", c10::str("the length of key, ", key.size(-2)), describe(value));
  }
  if (!appends) return;
  if (key.size(-2) != query.size(-2)) {
    fail(kMultiHeadAttention, "key",
         c10::str("the length of query, ", query.size(-2), ", with a cache to append to"), describe(key));
  }
  if (inputs.key_padding_mask.defined()) {
    fail(kMultiHeadAttention, "key_padding_mask", "none with a cache to append to, but counts",
         describe(inputs.key_padding_mask));
  }
  if (!options.is_causal() && !inputs.is_causal) {
    fail(kMultiHeadAttention, "cache", "is_causal(true), as what is appended to it is masked causally",
         "is_causal(false)");
  }
}

/// Of the scores, before a cache is appended to.
ScoreShape score_shape(const MultiHeadAttentionImpl& module, const torch::Tensor& query,
                       const torch::Tensor& key, const MultiHeadAttentionInputs& inputs) {
  const auto* const cache = inputs.cache;
  const int64_t queries = query.size(-2), keys = cache == nullptr ? key.size(-2)
                                                 : inputs.appends ? cache->num_keys(queries, inputs.counts)
                                                                  : cache->num_keys(0);
  return {query.dim() == 3 ? query.size(0) : 1, module.options.num_heads(), queries, keys};
}

/// Everything but the attention itself, whose query, key and value may be left to their defaults.
Call prepare(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& given_key,
             const torch::Tensor& given_value, const MultiHeadAttentionInputs& inputs) {
  const auto& options = module.options;
  const auto& key = given_key.defined() ? given_key : query;
  const auto& value = given_value.defined() ? given_value : key;
  check_inputs(module, query, key, value, inputs);

  Call call;
  auto& params = call.params;
  params.mask = own_mask(options, inputs) & inputs.mask;
  params.dropout_p = module.is_training() ? options.dropout() : 0;
  if (options.qk_norm()) params.scale = 1;
  if (options.sinks()) params.sinks = module.sinks;
  params.score_mod = own_score_mod(module, query.device());
  const auto shape = score_shape(module, query, key, inputs);
  apply_key_padding_mask(inputs.key_padding_mask, shape, query.dim(), params);
  apply_attn_mask(inputs.attn_mask, shape, params);
  const bool appends = inputs.cache != nullptr && inputs.appends;
  if (appends && params.mask.defined()) {  // else `attention` checks it before anything has changed
    check_mask("attention", params.mask, shape, /*query_dim=*/4, query.device());
  }
  if (inputs.cache != nullptr && !inputs.appends) {
    read(module, *inputs.cache, query, call);
  } else {
    read_and_append(module, inputs, query, key, value, call);
  }
  return call;
}

/// What differs from its default.
void print_others(std::ostream& stream, const MultiHeadAttentionOptions& options) {
  if (options.kdim() != options.embed_dim()) stream << ", kdim=" << options.kdim();
  if (options.vdim() != options.embed_dim()) stream << ", vdim=" << options.vdim();
  if (options.dropout() != 0) stream << ", dropout=" << options.dropout();
  if (options.qk_norm()) stream << ", qk_norm=true";
  if (options.rotary()) stream << ", rotary=true";
  if (options.alibi()) stream << ", alibi=true";
  const auto& window = options.window();
  if (window.left >= 0 || window.right >= 0)
    stream << ", window=[" << window.left << ", " << window.right << "]";
  if (options.softcap() != 0) stream << ", softcap=" << options.softcap();
  if (options.relative_bias()) stream << ", relative_bias=true";
  if (options.sinks()) stream << ", sinks=true";
  if (options.is_causal()) stream << ", is_causal=true";
}

}  // namespace

MultiHeadAttentionImpl::MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options_)
    : options(completed(options_)) {
  reset();
}

void MultiHeadAttentionImpl::reset() {
  const int64_t queries = query_rows(options), keys = kv_rows(options);
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
  if (options.qk_norm()) logit_scale = parameter("logit_scale", {options.num_heads()});
  if (const auto& buckets = options.relative_bias()) {
    relative_bias = parameter("relative_bias", {buckets->count, options.num_heads()});
  }
  if (options.sinks()) sinks = parameter("sinks", {options.num_heads()});
  out_proj = register_module(
      "out_proj",
      torch::nn::Linear(torch::nn::LinearOptions(queries, options.embed_dim()).bias(options.bias())));
  reset_parameters();
}

/// As torch.nn.MultiheadAttention does.
void MultiHeadAttentionImpl::reset_parameters() {
  for (auto& weight : {in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight}) {
    if (weight.defined()) torch::nn::init::xavier_uniform_(weight);
  }
  out_proj->reset_parameters();
  if (options.bias()) {
    torch::nn::init::zeros_(in_proj_bias);
    torch::nn::init::zeros_(out_proj->bias);
  }
  if (options.qk_norm()) torch::nn::init::constant_(logit_scale, std::log(10.0));  // Liu 2021
  if (options.relative_bias()) {                                                   // as T5 starts
    torch::nn::init::normal_(relative_bias, 0, 1 / std::sqrt(static_cast<double>(options.embed_dim())));
  }
  if (options.sinks()) torch::nn::init::zeros_(sinks);  // Miller 2023
}

void MultiHeadAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::MultiHeadAttention(embed_dim=" << options.embed_dim()
         << ", num_heads=" << options.num_heads() << ", num_kv_heads=" << options.num_kv_heads()
         << ", head_dim=" << options.head_dim() << ", bias=" << (options.bias() ? "true" : "false");
  print_others(stream, options);
  stream << ")";
}

torch::Tensor MultiHeadAttentionImpl::project_out(const torch::Tensor& heads, int64_t query_dim) {
  const auto result = linear(heads.transpose(1, 2).flatten(2), *out_proj);
  return query_dim == 3 ? result : result.squeeze(0);
}

torch::Tensor MultiHeadAttentionImpl::forward(const torch::Tensor& query, const torch::Tensor& key,
                                              const torch::Tensor& value,
                                              const MultiHeadAttentionInputs& inputs) {
  const auto [heads, params] = prepare(*this, query, key, value, inputs);
  return project_out(attention(heads.query, heads.key, heads.value, params), query.dim());
}

std::tuple<torch::Tensor, torch::Tensor> MultiHeadAttentionImpl::forward_with_weights(
    const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
    const MultiHeadAttentionInputs& inputs, bool average) {
  const auto [heads, params] = prepare(*this, query, key, value, inputs);
  const auto result = project_out(attention(heads.query, heads.key, heads.value, params), query.dim());
  auto weights = attention_weights(heads.query, heads.key, params);
  if (average) weights = weights.mean(1);
  return {result, query.dim() == 3 ? weights : weights.squeeze(0)};
}

KVCache MultiHeadAttentionImpl::make_cache(int64_t batch, int64_t capacity) const {
  const int64_t window = options.window().left + 1;
  const bool forgets = window > 0 && window < capacity;
  return KVCache(KVCacheOptions(options.num_kv_heads(), options.head_dim())
                     .batch(batch)
                     .capacity(forgets ? window : capacity)
                     .window(forgets ? window : 0)
                     .options(out_proj->weight.options().requires_grad(false)));
}

void MultiHeadAttentionImpl::append(KVCache& cache, const torch::Tensor& key,
                                    const torch::Tensor& given_value, const torch::Tensor& counts) {
  const auto& value = given_value.defined() ? given_value : key;
  check_cache(options, cache);
  check_input(kMultiHeadAttention, "key", key, options.kdim(), {"key", key}, out_proj->weight);
  check_input(kMultiHeadAttention, "value", value, options.vdim(), {"key", key}, out_proj->weight);
  auto heads = project_key_value(*this, key, value);
  check_fits(options, cache, heads.key);
  if (options.qk_norm()) heads.key = l2_norm(heads.key, kUnitEps);
  if (const auto& params = options.rotary()) {
    heads.key = rotary(heads.key, *params, cache.positions(heads.key.size(2), counts));
  }
  cache.append(heads.key, heads.value, counts);
}

}  // namespace attend::nn
