#include <attend/checkpointing.h>
#include <attend/nn/transformer_stack.h>

#include <algorithm>
#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "core/mask_node.h"
#include "nn/feed_forward.h"

namespace attend::nn {
namespace {

using checks::ArgumentName;
using checks::describe;
using checks::fail;
using checks::in_function;
using checks::in_module;

constexpr auto kEncoder = "nn::TransformerEncoder";
constexpr auto kDecoder = "nn::TransformerDecoder";

/// The names in a decoder of what the attention of a layer calls by the inner name.
constexpr ArgumentName kMemoryNames[] = {{"key", "memory"}, {"value", "memory"}};

/// The names in an encoder of what its caches call by the inner name.
constexpr ArgumentName kCacheNames[] = {{"key", "src"}, {"lengths", "params.lengths"}};

void check_stack(const char* name, const TransformerStackOptions& options) {
  const int64_t layers = options.num_layers();
  if (layers < 0) fail(name, "num_layers", "at least 0", c10::str(layers));
  if (const size_t mixers = options.mixers().size(); mixers > static_cast<size_t>(layers)) {
    fail(name, "mixers", c10::str("at most one for each of the ", layers, " layers"), c10::str(mixers));
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
  if (stack.options.final_norm())
    stack.norm = stack.register_module("norm", Norm(norm_options(stack.options.layer())));
}

void print_stack(std::ostream& stream, const char* name, const TransformerStackOptions& options) {
  stream << "attend::nn::" << name << "(num_layers=" << options.num_layers()
         << ", checkpointing=" << (options.checkpointing() ? "true" : "false") << ")";
}

/// Fails where the arguments of every layer hold the cache of one.
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

size_t count_mixers(torch::nn::ModuleListImpl& layers) {
  size_t count = 0;
  for (size_t n = 0; n < layers.size(); ++n) {
    count += layers.ptr<TransformerEncoderLayerImpl>(n)->mixer.is_empty() ? 0 : 1;
  }
  return count;
}

/// `params` with other tensors as masks.
MultiHeadAttentionParams with_masks(MultiHeadAttentionParams params, const torch::Tensor& key_padding_mask,
                                    const torch::Tensor& attn_mask) {
  params.key_padding_mask = key_padding_mask;
  params.attn_mask = attn_mask;
  return params;
}

/// `params` with the cache of a layer.
MultiHeadAttentionParams with_cache(MultiHeadAttentionParams params, KVCache& cache,
                                    bool update_cache = true) {
  params.cache = &cache;
  params.update_cache = update_cache;
  return params;
}

/// The tensors that a layer reads besides its inputs: its parameters, and those of masks.
std::vector<at::Tensor> captured_tensors(const torch::nn::Module& layer, std::initializer_list<Mask> masks) {
  auto tensors = layer.parameters();
  for (const auto& mask : masks) {
    for (auto& tensor : tensors_of(mask)) tensors.push_back(std::move(tensor));
  }
  return tensors;
}

/// Fails unless every cache has room for the tokens of `src`, before the first layer appends to its own.
void check_room(const TransformerStackOptions& options, const torch::Tensor& src,
                const torch::Tensor& lengths, const std::vector<KVCache>& caches) {
  if (!src.defined() || src.dim() < 2) return;  // an error of the first layer
  const bool is_batch_second = src.dim() == 3 && !options.layer().batch_first();
  const int64_t tokens = is_batch_second ? src.size(0) : src.size(-2);
  for (const auto& cache : caches) {
    in_function(kEncoder, kCacheNames, [&] { cache.num_keys(tokens, lengths); });
  }
}

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

torch::Tensor TransformerEncoderImpl::forward(const torch::Tensor& src,
                                              const MultiHeadAttentionParams& params,
                                              TransformerCache* cache) {
  check_no_cache(kEncoder, "params", params);
  if (cache != nullptr) {
    const size_t mixers = count_mixers(*layers);
    check_caches(kEncoder, "cache", cache->self, layers->size() - mixers);
    check_caches(kEncoder, "cache.recurrent", cache->recurrent, mixers);
    check_room(options, src, params.lengths, cache->self);
  }
  auto x = src;
  size_t attending = 0, mixing = 0;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerEncoderLayerImpl>(n);
    x = in_module(kEncoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      if (cache != nullptr && !layer->mixer.is_empty()) {
        return layer->forward(x, params, &cache->recurrent[mixing++]);
      }
      if (cache != nullptr) return layer->forward(x, with_cache(params, cache->self[attending++]));
      if (!options.checkpointing()) return layer->forward(x, params);
      const auto run = [=](const std::vector<at::Tensor>& tensors) {
        return layer->forward(tensors[0], with_masks(params, tensors[1], tensors[2]));
      };
      return attend::checkpointed(run, {x, params.key_padding_mask, params.attn_mask},
                                  captured_tensors(*layer, {params.mask}));
    });
  }
  return norm.is_empty() ? x : norm(x);
}

TransformerCache TransformerEncoderImpl::make_cache(int64_t batch, int64_t capacity) const {
  TransformerCache cache;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerEncoderLayerImpl>(n);
    if (layer->mixer.is_empty()) {
      cache.self.push_back(layer->self_attn->make_cache(batch, capacity));
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

torch::Tensor TransformerDecoderImpl::forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                                              const MultiHeadAttentionParams& self,
                                              const MultiHeadAttentionParams& cross,
                                              TransformerCache* cache) {
  check_no_cache(kDecoder, "self", self);
  check_no_cache(kDecoder, "cross", cross);
  auto target_params = self, memory_params = cross;
  if (cache != nullptr) {
    check_caches(kDecoder, "cache", cache->self, layers->size());
    check_caches(kDecoder, "cache", cache->memory, layers->size());
    target_params.is_causal = true;
    if (memory.defined()) fail(kDecoder, "memory", "none with a cache, which holds it", describe(memory));
    if (!memory_params.key_padding_mask.defined())
      memory_params.key_padding_mask = cache->memory_key_padding_mask;
  }
  auto x = tgt;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerDecoderLayerImpl>(n);
    x = in_module(kDecoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      if (cache != nullptr) {
        return layer->forward(x, {}, with_cache(target_params, cache->self[n]),
                              with_cache(memory_params, cache->memory[n], /*update_cache=*/false));
      }
      if (!options.checkpointing()) return layer->forward(x, memory, self, cross);
      const auto run = [=](const std::vector<at::Tensor>& tensors) {
        return layer->forward(tensors[0], tensors[1], with_masks(self, tensors[2], tensors[3]),
                              with_masks(cross, tensors[4], tensors[5]));
      };
      return attend::checkpointed(
          run, {x, memory, self.key_padding_mask, self.attn_mask, cross.key_padding_mask, cross.attn_mask},
          captured_tensors(*layer, {self.mask, cross.mask}));
    });
  }
  return norm.is_empty() ? x : norm(x);
}

TransformerCache TransformerDecoderImpl::make_cache(const torch::Tensor& memory, int64_t capacity,
                                                    const torch::Tensor& memory_key_padding_mask) {
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
    cache.self.push_back(layer->self_attn->make_cache(batch, capacity));
    cache.memory.push_back(layer->multihead_attn->make_cache(batch, std::max<int64_t>(keys.size(-2), 1)));
    in_module(kDecoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      in_module("nn::TransformerDecoderLayer", "multihead_attn", kMemoryNames,
                [&] { layer->multihead_attn->append(cache.memory.back(), keys); });
    });
  }
  return cache;
}

}  // namespace attend::nn
