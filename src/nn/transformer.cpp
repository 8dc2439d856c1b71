#include <attend/checkpointing.h>
#include <attend/nn/transformer.h>
#include <torch/nn/init.h>

#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "core/mask_node.h"

namespace attend::nn {
namespace {

using checks::ArgumentName;
using checks::describe;
using checks::fail;
using checks::in_function;
using checks::in_module;

constexpr auto kEncoder = "nn::TransformerEncoder";
constexpr auto kDecoder = "nn::TransformerDecoder";
constexpr auto kTransformer = "nn::Transformer";

/// The names in a decoder of what the attention of a layer calls by the inner name.
constexpr ArgumentName kMemoryNames[] = {{"key", "memory"}, {"value", "memory"}};

/// The names in an encoder of what its caches call by the inner name.
constexpr ArgumentName kCacheNames[] = {{"key", "src"}, {"counts", "inputs.counts"}};

/// The names in a `Transformer` of what its encoder or decoder calls by the inner name: options, and
/// arguments.
constexpr ArgumentName kEncoderOptionNames[] = {{"num_layers", "num_encoder_layers"}};
constexpr ArgumentName kDecoderOptionNames[] = {{"num_layers", "num_decoder_layers"}};
constexpr ArgumentName kEncoderNames[] = {{"key_padding_mask", "src_key_padding_mask"},
                                          {"attn_mask", "src_mask"}};
constexpr ArgumentName kDecoderNames[] = {{"memory", "src"},
                                          {"self.key_padding_mask", "tgt_key_padding_mask"},
                                          {"self.attn_mask", "tgt_mask"},
                                          {"cross.key_padding_mask", "memory_key_padding_mask"},
                                          {"cross.attn_mask", "memory_mask"}};

void check_stack(const char* name, const TransformerStackOptions& options) {
  const int64_t layers = options.num_layers();
  if (layers < 0) fail(name, "num_layers", "at least 0", c10::str(layers));
  if (const size_t mixers = options.mixers().size(); mixers > static_cast<size_t>(layers)) {
    fail(name, "mixers", c10::str("one for each of the ", layers, " layers, or fewer, which repeat"),
         c10::str(mixers));
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
  if (stack.options.final_norm()) stack.norm = stack.register_module("norm", Norm(stack.options.layer()));
}

void print_stack(std::ostream& stream, const char* name, const TransformerStackOptions& options) {
  stream << "attend::nn::" << name << "(num_layers=" << options.num_layers()
         << ", checkpointing=" << (options.checkpointing() ? "true" : "false") << ")";
}

/// A cache belongs to a layer, so that a stack takes all of them together.
void check_inputs(const char* name, const char* argument, const MultiHeadAttentionInputs& inputs) {
  if (inputs.cache != nullptr) {
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

/// `inputs`, with other masks of the same kind.
MultiHeadAttentionInputs with_masks(MultiHeadAttentionInputs inputs, const torch::Tensor& key_padding_mask,
                                    const torch::Tensor& attn_mask) {
  inputs.key_padding_mask = key_padding_mask;
  inputs.attn_mask = attn_mask;
  return inputs;
}

/// What a layer reads besides its inputs: its parameters, and the tensors of masks.
std::vector<at::Tensor> read_by(const torch::nn::Module& layer, std::initializer_list<Mask> masks) {
  auto tensors = layer.parameters();
  for (const auto& mask : masks) {
    for (auto& tensor : tensors_of(mask)) tensors.push_back(std::move(tensor));
  }
  return tensors;
}

/// Fails where there is no room for the tokens of `src` in a cache, before any layer has changed its own.
void check_room(const TransformerStackOptions& options, const torch::Tensor& src, const torch::Tensor& counts,
                const std::vector<KVCache>& caches) {
  if (!src.defined() || src.dim() < 2) return;  // which a layer refuses
  const bool is_other = src.dim() == 3 && !options.layer().batch_first();
  for (const auto& cache : caches) {
    in_function(kEncoder, kCacheNames,
                [&] { cache.num_keys(is_other ? src.size(0) : src.size(-2), counts); });
  }
}

/// `inputs`, with a layer's cache.
MultiHeadAttentionInputs with_cache(MultiHeadAttentionInputs inputs, KVCache& cache, bool appends = true) {
  inputs.cache = &cache;
  inputs.appends = appends;
  return inputs;
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
                                              const MultiHeadAttentionInputs& inputs,
                                              TransformerCache* cache) {
  check_inputs(kEncoder, "inputs", inputs);
  if (cache != nullptr) {
    const size_t mixers = count_mixers(*layers);
    check_caches(kEncoder, "cache", cache->self, layers->size() - mixers);
    check_caches(kEncoder, "cache.recurrent", cache->recurrent, mixers);
    check_room(options, src, inputs.counts, cache->self);
  }
  auto x = src;
  size_t attending = 0, mixing = 0;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerEncoderLayerImpl>(n);
    x = in_module(kEncoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      if (cache != nullptr && !layer->mixer.is_empty()) {
        return layer->forward(x, inputs, &cache->recurrent[mixing++]);
      }
      if (cache != nullptr) return layer->forward(x, with_cache(inputs, cache->self[attending++]));
      if (!options.checkpointing()) return layer->forward(x, inputs);
      const auto run = [=](const std::vector<at::Tensor>& of) {
        return layer->forward(of[0], with_masks(inputs, of[1], of[2]));
      };
      return attend::checkpointed(run, {x, inputs.key_padding_mask, inputs.attn_mask},
                                  read_by(*layer, {inputs.mask}));
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
                                              const MultiHeadAttentionInputs& self,
                                              const MultiHeadAttentionInputs& cross,
                                              TransformerCache* cache) {
  check_inputs(kDecoder, "self", self);
  check_inputs(kDecoder, "cross", cross);
  auto of_target = self, of_memory = cross;
  if (cache != nullptr) {
    check_caches(kDecoder, "cache", cache->self, layers->size());
    check_caches(kDecoder, "cache", cache->memory, layers->size());
    of_target.is_causal = true;
    if (memory.defined()) fail(kDecoder, "memory", "none beside a cache, which holds it", describe(memory));
    if (!of_memory.key_padding_mask.defined()) of_memory.key_padding_mask = cache->memory_key_padding_mask;
  }
  auto x = tgt;
  for (size_t n = 0; n < layers->size(); ++n) {
    const auto layer = layers->ptr<TransformerDecoderLayerImpl>(n);
    x = in_module(kDecoder, {"layers", static_cast<int64_t>(n)}, {}, [&] {
      if (cache != nullptr) {
        return layer->forward(x, {}, with_cache(of_target, cache->self[n]),
                              with_cache(of_memory, cache->memory[n], /*appends=*/false));
      }
      if (!options.checkpointing()) return layer->forward(x, memory, self, cross);
      const auto run = [=](const std::vector<at::Tensor>& of) {
        return layer->forward(of[0], of[1], with_masks(self, of[2], of[3]), with_masks(cross, of[4], of[5]));
      };
      return attend::checkpointed(
          run, {x, memory, self.key_padding_mask, self.attn_mask, cross.key_padding_mask, cross.attn_mask},
          read_by(*layer, {self.mask, cross.mask}));
    });
  }
  return norm.is_empty() ? x : norm(x);
}

TransformerCache TransformerDecoderImpl::make_cache(const torch::Tensor& memory, int64_t capacity,
                                                    const torch::Tensor& memory_key_padding_mask) {
  checks::is_strided(kDecoder, "memory", memory);
  if (memory.dim() != 2 && memory.dim() != 3) {
    fail(kDecoder, "memory",
         c10::str("[B, S, ", options.layer().d_model(), "] or [S, ", options.layer().d_model(), "]"),
         describe(memory));
  }
  const bool is_other = memory.dim() == 3 && !options.layer().batch_first();
  const auto keys = is_other ? memory.transpose(0, 1) : memory;
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

// ---- both

TransformerImpl::TransformerImpl(const TransformerOptions& options_) : options(options_) { reset(); }

void TransformerImpl::reset() {
  const auto stack = [this](int64_t num_layers) {
    return TransformerStackOptions(options.layer(), num_layers)
        .final_norm(true)
        .checkpointing(options.checkpointing());
  };
  encoder = in_module(kTransformer, "encoder", kEncoderOptionNames, [&] {
    return register_module("encoder", TransformerEncoder(stack(options.num_encoder_layers())));
  });
  decoder = in_module(kTransformer, "decoder", kDecoderOptionNames, [&] {
    return register_module("decoder", TransformerDecoder(stack(options.num_decoder_layers())));
  });
  reset_parameters();
}

void TransformerImpl::reset_parameters() {
  for (auto& parameter : parameters()) {
    if (parameter.dim() > 1) torch::nn::init::xavier_uniform_(parameter);
  }
}

void TransformerImpl::pretty_print(std::ostream& stream) const { stream << "attend::nn::Transformer"; }

torch::Tensor TransformerImpl::forward(const torch::Tensor& src, const torch::Tensor& tgt,
                                       const TransformerMasks& masks) {
  const MultiHeadAttentionInputs of_source{.key_padding_mask = masks.src_key_padding_mask,
                                           .attn_mask = masks.src_mask};
  const MultiHeadAttentionInputs of_target{.key_padding_mask = masks.tgt_key_padding_mask,
                                           .attn_mask = masks.tgt_mask,
                                           .mask = masks.tgt_is_causal ? causal() : Mask()};
  const MultiHeadAttentionInputs of_memory{.key_padding_mask = masks.memory_key_padding_mask,
                                           .attn_mask = masks.memory_mask};
  const auto memory =
      in_module(kTransformer, "encoder", kEncoderNames, [&] { return encoder(src, of_source); });
  return in_module(kTransformer, "decoder", kDecoderNames,
                   [&] { return decoder(tgt, memory, of_target, of_memory); });
}

}  // namespace attend::nn
