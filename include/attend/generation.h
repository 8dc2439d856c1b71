#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace attend {

/// A language model as `generate` uses it: two functions that share a state, which are the caches. With a
/// decoder:
///
///     const torch::NoGradGuard no_grad;
///     auto cache = decoder->make_cache(memory, capacity);
///     attend::TokenModel model{
///         .logits = [&](const auto& tokens, const auto& lengths) {
///           const auto x = decoder(embedding(tokens), {}, {.lengths = lengths}, {}, &cache);
///           return head(x.select(1, -1));
///         },
///         .select = [&](const auto& sequences) { cache.select(sequences); }};
struct TokenModel {
  /// Appends `tokens`, int64 [B, L], to the sequences and returns the logits [B, V] of the next token of
  /// each. `lengths` is the argument of `generate` on the first call, if it was given, and undefined
  /// otherwise; see `KVCache::append`.
  std::function<at::Tensor(const at::Tensor& tokens, const at::Tensor& lengths)> logits;
  /// Replaces sequence b by the previous sequence sequences[b], int64 [B']; required by beam search only.
  std::function<void(const at::Tensor& sequences)> select = {};
};

/// Parameters of `generate`.
struct GenerationParams {
  /// The maximum number of tokens to generate; with 0 the model is not called.
  int64_t max_new_tokens = 64;
  /// The token that ends a sequence.
  std::optional<int64_t> eos_token_id = {};
  /// 0: the most likely token (greedy). Otherwise tokens are sampled from softmax(logits / temperature).
  double temperature = 0;
  /// With a temperature: sample among the k most likely tokens (Fan 2018). 0 means all.
  int64_t top_k = 0;
  /// With a temperature: sample from the nucleus, the smallest set of most likely tokens whose total
  /// probability is at least top_p (Holtzman 2020), after top_k is applied. 1 means all.
  double top_p = 1;
  /// Above 1: beam search with this many beams, without a temperature.
  int64_t num_beams = 1;
  /// Beam search maximises log probability / length^length_penalty.
  double length_penalty = 1;
  /// The generator of the CPU to sample with. Default: the CPU's default generator.
  std::optional<at::Generator> generator = {};
};

/// The result of `generate`.
struct Generation {
  /// The generated tokens without the prompt, int64 [B, N] with N <= max_new_tokens, eos_token_id included.
  /// Sequences that end earlier are padded with eos_token_id.
  at::Tensor tokens;
  /// The sum of the log probabilities that the model assigns to the tokens of each sequence, float64 [B].
  at::Tensor log_probability;
};

/// Continues each prompt, int64 [B, L] with L >= 1, one token at a time. `lengths`, int64 [B], is for prompts
/// of different lengths: prompt b is the last lengths[b] >= 1 tokens, after padding. No gradients are
/// recorded. Errors (c10::Error): parameters out of their range; top_k or top_p without a temperature; beam
/// search with a temperature or without `select`; prompts, lengths or logits of another shape or dtype; a
/// prompt without tokens; logits that contain NaN, or a row of them without a finite element.
ATTEND_API Generation generate(const TokenModel& model, const at::Tensor& prompt,
                               const GenerationParams& params = {}, const at::Tensor& lengths = {});

}  // namespace attend
