#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace attend {

/// A language model as `generate` sees it: a state (the caches) and two ways to change it. With a decoder:
///
///     const torch::NoGradGuard no_grad;
///     auto cache = decoder->make_cache(memory, capacity);
///     attend::TokenModel model{
///         .logits = [&](const auto& tokens, const auto& counts) {
///           const auto x = decoder(embedding(tokens), {}, {.counts = counts}, {}, &cache);
///           return head(x.select(1, -1));
///         },
///         .select = [&](const auto& sequences) { cache.select(sequences); }};
struct TokenModel {
  /// Reads `tokens`, int64 [B, L], after all that it read before, and returns the logits [B, V] of the token
  /// that comes next. `counts`: of a first call with prompts of different lengths, as `KVCache::append` takes
  /// it, else undefined.
  std::function<at::Tensor(const at::Tensor& tokens, const at::Tensor& counts)> logits;
  /// Sequence b becomes what sequences[b] was, int64 [B']; for beams alone.
  std::function<void(const at::Tensor& sequences)> select = {};
};

struct GenerationParams {
  /// How many tokens to write at most; 0: none, and the model reads nothing.
  int64_t max_tokens = 64;
  /// The token after which a sequence is complete.
  std::optional<int64_t> end_token = {};
  /// 0: the likeliest token (greedy). Else tokens are drawn from softmax(logits / temperature).
  double temperature = 0;
  /// With a temperature: draw from the k likeliest tokens alone (Fan 2018). 0: from all.
  int64_t top_k = 0;
  /// With a temperature: draw from the nucleus alone, the likeliest tokens, as few as have this probability
  /// together (Holtzman 2020), of what top_k left. 1: from all.
  double top_p = 1;
  /// More than 1: beam search, which keeps that many sequences; not for drawing.
  int64_t beams = 1;
  /// Beam search looks for the largest log probability / length^length_penalty.
  double length_penalty = 1;
  /// Whose random numbers decide, of the CPU, where tokens are drawn. Default: the CPU's.
  std::optional<at::Generator> generator = {};
};

struct Generation {
  /// int64 [B, N]: what follows the prompt, N <= max_tokens, the end token included; shorter sequences are
  /// filled up with it.
  at::Tensor tokens;
  /// [B], float64: the sum of the log probabilities that the model gives to these tokens.
  at::Tensor log_probability;
};

/// Continues each prompt, int64 [B, L], L >= 1, a token at a time. `counts`: int64 [B], for prompts of
/// different lengths; the last counts[b] tokens, at least 1, are prompt b, what is before is padding. No
/// gradients are recorded. Errors (c10::Error): parameters out of their range, top_k or top_p without a
/// temperature, prompts, counts or logits of another shape, a prompt without tokens, beams without `select`
/// or with a temperature.
ATTEND_API Generation generate(const TokenModel& model, const at::Tensor& prompt,
                               const GenerationParams& params = {}, const at::Tensor& counts = {});

}  // namespace attend
