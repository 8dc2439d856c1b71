#include <attend/checkpointing.h>
#include <attend/nn/transformer_stack.h>

#include <algorithm>
#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "core/mask_node.h"
#include "nn/checks.h"
#include "nn/feed_forward.h"
#include "nn/multi_head_check.h"

namespace attend::nn {
namespace {

using checks::ArgumentName;
using checks::describe;
using checks::fail;
using checks::in_function;
using checks::in_module;

constexpr auto kEncoder = "nn::TransformerEncoder";
constexpr auto kDecoder = "nn::TransformerDecoder";

/// The names of arguments in the attention of a layer, each with the name that it has in a decoder.
constexpr ArgumentName kMemoryNames[] = {
    {"key", "memory"}, {"value", "memory"}, {"key_padding_mask", "memory_key_padding_mask"}};

/// The names of arguments in a cache, each with the name that it has in an encoder.
constexpr ArgumentName kCacheNames[] = {{"key", "src"}, {"lengths", "params.lengths"}};

void check_stack(const char* name, const TransformerStackOptions& options) {
  const int64_t layers = options.num_layers();
  if (layers < 0) fail(name, "num_layers", "at least 0", c10::str(layers));
  if (const size_t mixers = options.mixers().size(); mixers > static_cast<size_t>(layers)) {
    fail(name, "mixers", c10::str("at most one for each of the ", layers, " layers"), c10::str(mixers));
  }
  const auto& norm = options.final_norm_options();
  if (!norm) return;
  if (!options.final_norm()) fail(name, "final_norm_options", "none without final_norm", "some");
  if (norm->width() != options.layer().d_model()) {
    fail(name, "final_norm_options", c10::str("a norm of width ", options.layer().d_model()),
         c10::str(norm->width()));
  }
}

template <typename Layer, typename Stack>
void register_layers(const char* name, Stack& stack) {
  stack.layers = stack.register_module("layers", torch::nn::ModuleList());
  const auto& mixers = stack.options.mixers();
  for (int64_t n = 0; n < stack.options.num_layers(); ++n) {
    auto layer = stack.options.layer();
    if (!mixers.empty()) layer.mixer(mixers[static_cast<size_t>(n) % mixers.size()]);
    stack.layers->push_back(in_module(name, {"layers", n}, {}, [&] { return Layer(layer); }));
  }
  if (!stack.options.final_norm()) return;
  stack.norm = in_module(name, "norm", {}, [&] {
    const auto& options = stack.options;
    return stack.register_module("norm",
                                 Norm(options.final_norm_options().value_or(norm_options(options.layer()))));
  });
}

void print_stack(std::ostream& stream, const char* name, const TransformerStackOptions& options) {
  stream << "attend::nn::" << name << "(num_layers=" << options.num_layers()
         << ", checkpointing=" << (options.checkpointing() ? "true" : "false") << ")";
}

/// Fails if `params`, the arguments for every layer, has a cache.
void check_no_cache(const char* name, const char* argument, const MultiHeadAttentionParams& params) {
  if (params.cache != nullptr) {
    fail(name, argument, "no cache of one layer, but a TransformerCache", "a KVCache");
  }
}

template <typename Cache>
void check_caches(const char* name, const char* argument, const std::vector<Cache>& caches, size_t layers) {
  if (caches.size() != layers) {
    fail(name, argument, c10::str("a cache for each of the ", layers, " layers"), c10::str(caches.size()));
  }
}

size_t count_mixers(const torch::nn::ModuleListImpl& layers) {
  size_t count = 0;
  for (size_t n = 0; n < layers.size(); ++n) {
    count += layers.ptr<TransformerEncoderLayerImpl>(n)->mixer.is_empty() ? 0 : 1;
  }
  return count;
}

/// Returns `params` with other tensors as masks.
MultiHeadAttentionParams with_masks(MultiHeadAttentionParams params, const torch::Tensor& key_padding_mask,
                                    const torch::Tensor& attn_mask) {
  params.key_padding_mask = key_padding_mask;
  params.attn_mask = attn_mask;
  return params;
}

/// Returns `params` with the cache of a layer.
MultiHeadAttentionParams with_cache(MultiHeadAttentionParams params, KVCache& cache,
                                    bool update_cache = true) {
  params.cache = &cache;
  params.update_cache = update_cache;
  return params;
}

/// Returns the tensors that a layer reads besides its inputs: its parameters, and the tensors of masks.
std::vector<at::Tensor> captured_tensors(const torch::nn::Module& layer, std::initializer_list<Mask> masks) {
  auto tensors = layer.parameters();
  for (const auto& mask : masks) {
    for (auto& tensor : tensors_of(mask)) tensors.push_back(std::move(tensor));
  }
  return tensors;
}

/// Fails unless every cache has room for the tokens of `src`. The layers check this, too, but their errors
/// would not have the names of the stack's arguments.
void check_room(const TransformerStackOptions& options, const torch::Tensor& src,
                const torch::Tensor& lengths, const std::vector<KVCache>& caches) {
  if (!src.defined() || src.dim() < 2) return;  // the first layer reports this error
  const bool is_batch_second = src.dim() == 3 && !options.layer().batch_first();
  const int64_t tokens = is_batch_second ? src.size(0) : src.size(-2);
  for (const auto& cache : caches) {
    in_function(kEncoder, kCacheNames, [&] { cache.num_keys(tokens, lengths); });
  }
}

/// Checks the input of a stack without layers, whose norm reads the input.
void check_norm_input(const char* name, const char* argument, const torch::Tensor& input,
                      const TransformerLayerOptions& options, const Norm& norm) {
  if (norm.is_empty()) return;
  check_input(name, argument, input, options.d_model(), {argument, input, options.batch_first()},
              norm->weight);
}

/// Calls visit(n, layer, cache, state) for each layer of an encoder. With a TransformerCache, either the
/// cache or the state is the one of the layer, and the other is null; without, both are null.
template <typename Visit>
void for_each_layer(const torch::nn::ModuleList& layers, TransformerCache* cache, Visit&& visit) {
  size_t attending = 0, mixing = 0;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerEncoderLayerImpl>(n);
    const bool has_mixer = !layer->mixer.is_empty();
    auto* const kv_cache = cache != nullptr && !has_mixer ? &cache->self[attending++] : nullptr;
    auto* const state = cache != nullptr && has_mixer ? &cache->recurrent[mixing++] : nullptr;
    in_module(kEncoder, {"layers", static_cast<int64_t>(n)}, {}, [&] { visit(layer, kv_cache, state); });
  }
}

/// The arguments of every layer of a decoder.
struct DecoderParams {
  DecoderParams(const MultiHeadAttentionParams& given_self, const MultiHeadAttentionParams& given_cross,
                const TransformerCache* cache)
      : self(given_self), cross(given_cross) {
    if (cache == nullptr) return;
    self.is_causal = true;
    if (!cross.key_padding_mask.defined()) cross.key_padding_mask = cache->memory_key_padding_mask;
  }

  MultiHeadAttentionParams self, cross;
};

}  // namespace

// ---- the encoder

TransformerEncoderImpl::TransformerEncoderImpl(const TransformerStackOptions& options_) : options(options_) {
  reset();
}

void TransformerEncoderImpl::reset() {
  check_stack(kEncoder, options);
  register_layers<TransformerEncoderLayer>(kEncoder, *this);
}

void TransformerEncoderImpl::pretty_print(std::ostream& stream) const {
  print_stack(stream, "TransformerEncoder", options);
}

void TransformerEncoderImpl::check(const torch::Tensor& src, const MultiHeadAttentionParams& params,
                                   TransformerCache* cache) const {
  check_no_cache(kEncoder, "params", params);
  if (cache != nullptr) {
    const size_t mixers = count_mixers(*layers);
    check_caches(kEncoder, "cache", cache->self, layers->size() - mixers);
    check_caches(kEncoder, "cache.recurrent", cache->recurrent, mixers);
    check_room(options, src, params.lengths, cache->self);
  }
  if (layers->is_empty()) check_norm_input(kEncoder, "src", src, options.layer(), norm);
  // The input of every layer has the shape, dtype and device of src, which stands for it here.
  for_each_layer(layers, cache, [&](const auto& layer, KVCache* kv_cache, RecurrentState* state) {
    layer->check(src, kv_cache != nullptr ? with_cache(params, *kv_cache) : params, state);
  });
  if (cache != nullptr && !cache->self.empty()) check_no_gradient(kEncoder, *this, {src});
}

torch::Tensor TransformerEncoderImpl::forward(const torch::Tensor& src,
                                              const MultiHeadAttentionParams& params,
                                              TransformerCache* cache) {
  check(src, params, cache);
  return run(src, params, cache);
}

/// Computes `forward` for checked arguments.
torch::Tensor TransformerEncoderImpl::run(const torch::Tensor& src, const MultiHeadAttentionParams& params,
                                          TransformerCache* cache) {
  auto x = src;
  for_each_layer(layers, cache, [&](const auto& layer, KVCache* kv_cache, RecurrentState* state) {
    if (cache != nullptr || !options.checkpointing()) {
      x = layer->run(x, kv_cache != nullptr ? with_cache(params, *kv_cache) : params, state);
      return;
    }
    const auto run_layer = [=](const std::vector<at::Tensor>& tensors) {
      return layer->run(tensors[0], with_masks(params, tensors[1], tensors[2]), nullptr);
    };
    x = attend::checkpointed(run_layer, {x, params.key_padding_mask, params.attn_mask},
                             captured_tensors(*layer, {params.mask}));
  });
  return norm.is_empty() ? x : norm(x);
}

TransformerCache TransformerEncoderImpl::make_cache(int64_t batch, int64_t capacity,
                                                    std::optional<at::ScalarType> dtype) const {
  TransformerCache cache;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerEncoderLayerImpl>(n);
    if (layer->mixer.is_empty()) {
      cache.self.push_back(
          in_function(kEncoder, {}, [&] { return layer->self_attn->make_cache(batch, capacity, dtype); }));
    } else {
      cache.recurrent.emplace_back();
    }
  }
  return cache;
}

// ---- the decoder

TransformerDecoderImpl::TransformerDecoderImpl(const TransformerStackOptions& options_) : options(options_) {
  reset();
}

void TransformerDecoderImpl::reset() {
  check_stack(kDecoder, options);
  register_layers<TransformerDecoderLayer>(kDecoder, *this);
}

void TransformerDecoderImpl::pretty_print(std::ostream& stream) const {
  print_stack(stream, "TransformerDecoder", options);
}

void TransformerDecoderImpl::check(const torch::Tensor& tgt, const torch::Tensor& memory,
                                   const MultiHeadAttentionParams& self,
                                   const MultiHeadAttentionParams& cross, TransformerCache* cache) const {
  check_no_cache(kDecoder, "self", self);
  check_no_cache(kDecoder, "cross", cross);
  if (cache != nullptr) {
    check_caches(kDecoder, "cache", cache->self, layers->size());
    check_caches(kDecoder, "cache", cache->memory, layers->size());
    if (memory.defined()) fail(kDecoder, "memory", "none with a cache, which holds it", describe(memory));
  }
  if (layers->is_empty()) check_norm_input(kDecoder, "tgt", tgt, options.layer(), norm);
  const DecoderParams params(self, cross, cache);
  // The target of every layer has the shape, dtype and device of tgt, which stands for it here.
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerDecoderLayerImpl>(n);
    in_module(kDecoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      if (cache == nullptr) return layer->check(tgt, memory, params.self, params.cross);
      layer->check(tgt, {}, with_cache(params.self, cache->self[n]),
                   with_cache(params.cross, cache->memory[n], /*update_cache=*/false));
    });
  }
  if (cache != nullptr && !cache->self.empty()) check_no_gradient(kDecoder, *this, {tgt});
}

torch::Tensor TransformerDecoderImpl::forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                                              const MultiHeadAttentionParams& self,
                                              const MultiHeadAttentionParams& cross,
                                              TransformerCache* cache) {
  check(tgt, memory, self, cross, cache);
  return run(tgt, memory, self, cross, cache);
}

/// Computes `forward` for checked arguments.
torch::Tensor TransformerDecoderImpl::run(const torch::Tensor& tgt, const torch::Tensor& memory,
                                          const MultiHeadAttentionParams& given_self,
                                          const MultiHeadAttentionParams& given_cross,
                                          TransformerCache* cache) {
  const DecoderParams params(given_self, given_cross, cache);
  const auto &self = params.self, &cross = params.cross;
  auto x = tgt;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerDecoderLayerImpl>(n);
    if (cache != nullptr) {
      x = layer->run(x, {}, with_cache(self, cache->self[n]),
                     with_cache(cross, cache->memory[n], /*update_cache=*/false));
    } else if (!options.checkpointing()) {
      x = layer->run(x, memory, self, cross);
    } else {
      const auto run_layer = [=](const std::vector<at::Tensor>& tensors) {
        return layer->run(tensors[0], tensors[1], with_masks(self, tensors[2], tensors[3]),
                          with_masks(cross, tensors[4], tensors[5]));
      };
      x = attend::checkpointed(
          run_layer,
          {x, memory, self.key_padding_mask, self.attn_mask, cross.key_padding_mask, cross.attn_mask},
          captured_tensors(*layer, {self.mask, cross.mask}));
    }
  }
  return norm.is_empty() ? x : norm(x);
}

TransformerCache TransformerDecoderImpl::make_cache(const torch::Tensor& memory, int64_t capacity,
                                                    const torch::Tensor& memory_key_padding_mask,
                                                    std::optional<at::ScalarType> dtype) {
  checks::check_strided(kDecoder, "memory", memory);
  if (memory.dim() != 2 && memory.dim() != 3) {
    fail(kDecoder, "memory",
         c10::str("[B, S, ", options.layer().d_model(), "] or [S, ", options.layer().d_model(), "]"),
         describe(memory));
  }
  const bool is_batch_second = memory.dim() == 3 && !options.layer().batch_first();
  const auto keys = is_batch_second ? memory.transpose(0, 1) : memory;
  const int64_t batch = keys.dim() == 3 ? keys.size(0) : 1;
  TransformerCache cache;
  cache.memory_key_padding_mask = memory_key_padding_mask;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerDecoderLayerImpl>(n);
    const auto& attention = *layer->multihead_attn;
    in_function(kDecoder, {}, [&] {
      cache.self.push_back(layer->self_attn->make_cache(batch, capacity, dtype));
      cache.memory.push_back(attention.make_cache(batch, std::max<int64_t>(keys.size(-2), 1), dtype));
    });
    in_module(kDecoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      in_module("nn::TransformerDecoderLayer", "multihead_attn", kMemoryNames, [&] {
        layer->multihead_attn->append(cache.memory.back(), keys);
        if (!memory_key_padding_mask.defined()) return;
        check_key_padding_mask(attention, memory_key_padding_mask,
                               {batch, attention.options.num_heads(), /*queries=*/1, keys.size(-2)},
                               keys.dim(), query_dtype(attention, with_cache({}, cache.memory.back())));
      });
    });
  }
  return cache;
}

}  // namespace attend::nn
