#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

namespace attend {

/// A language model for `generate`: two functions that operate on the same caches. For a decoder:
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
  /// Replaces sequence b by the sequence that had index sequences[b] before the call, int64 [B']. Only beam
  /// search needs this function.
  std::function<void(const at::Tensor& sequences)> select = {};
};

/// Token ids: none, one or several, written `{}`, `2` or `{2, 5}`.
struct TokenIds {
  TokenIds() = default;
  /// One token.
  TokenIds(int64_t id) : ids{id} {}  // NOLINT(google-explicit-constructor)
  /// These tokens.
  TokenIds(std::initializer_list<int64_t> given) : ids(given) {}
  /// These tokens.
  TokenIds(std::vector<int64_t> given) : ids(std::move(given)) {}  // NOLINT(google-explicit-constructor)

  /// The tokens.
  std::vector<int64_t> ids;
};

/// A function that changes the scores of the next token. `tokens`, int64 [B, L], are the tokens so far,
/// beginning with the padded prompts; `scores` is float64 [B, V] and may be changed in place. Returns the new
/// scores, of the same shape; -inf excludes a token. All tensors are on the CPU.
using LogitsProcessor = std::function<at::Tensor(const at::Tensor& tokens, at::Tensor scores)>;

/// Parameters of `generate`, with the names of `transformers`. They are applied in the same order: repetition
/// penalty, minimum length, `logits_processor`; then, when sampling, temperature, top_k, top_p, min_p. The
/// first three change the logits, or in beam search the log probabilities.
struct GenerationParams {
  /// The maximum number of tokens to generate; with 0 the model is not called.
  int64_t max_new_tokens = 64;
  /// The tokens that end a sequence.
  TokenIds eos_token_id = {};
  /// The token with which sequences that end before others are padded. Default: the first of eos_token_id.
  std::optional<int64_t> pad_token_id = {};
  /// The number of tokens to generate before a sequence may end.
  int64_t min_new_tokens = 0;
  /// Divides the positive scores, and multiplies the negative ones, of tokens that are in the prompt or were
  /// generated (Keskar 2019). 1 means no penalty; above 1 these tokens become less likely.
  double repetition_penalty = 1;
  /// Further functions that change the scores, in this order.
  std::vector<LogitsProcessor> logits_processor = {};
  /// 0 selects the most likely token (greedy decoding). Otherwise tokens are sampled from softmax(logits /
  /// temperature).
  double temperature = 0;
  /// With a temperature: sample among the k most likely tokens (Fan 2018). 0 means all.
  int64_t top_k = 0;
  /// With a temperature: sample from the nucleus, the smallest set of most likely tokens whose total
  /// probability is at least top_p (Holtzman 2020), after top_k is applied. 1 means all.
  double top_p = 1;
  /// With a temperature: sample among the tokens that are at least min_p times as likely as the most likely
  /// one (Nguyen 2024), after top_p is applied. 0 means all.
  double min_p = 0;
  /// If above 1, the number of beams of beam search, which excludes a temperature.
  int64_t num_beams = 1;
  /// Beam search maximises log probability / length^length_penalty.
  double length_penalty = 1;
  /// The generator of the CPU to sample with. Default: the CPU's default generator.
  std::optional<at::Generator> generator = {};
  /// Called with the tokens of each step, int64 [B] on the prompt's device, as soon as they are chosen. If it
  /// returns false, the generation ends after this step. It can't be used with beam search, whose tokens are
  /// not final before the end.
  std::function<bool(const at::Tensor& tokens)> streamer = {};
};

/// The result of `generate`.
struct Generation {
  /// The generated tokens without the prompt, int64 [B, N] with N <= max_new_tokens, eos_token_id included.
  /// Sequences that end earlier are padded with pad_token_id.
  at::Tensor tokens;
  /// The sum of the log probabilities that the model assigns to the tokens of each sequence, float64 [B].
  at::Tensor log_probability;
};

/// Continues each prompt, int64 [B, L] with L >= 1, one token at a time. `lengths`, int64 [B], is for prompts
/// of different lengths: prompt b is the last lengths[b] >= 1 tokens, with padding before them. No gradients
/// are recorded. Errors (c10::Error): parameters out of their range; top_k, top_p or min_p without a
/// temperature; beam search with a temperature, a `streamer` or without `select`; prompts, lengths or logits
/// of another shape or dtype; a prompt without tokens, or with a repetition penalty with one that is not in
/// the vocabulary; logits that contain NaN, or a row of logits, or of processed scores, without a finite
/// element.
ATTEND_API Generation generate(const TokenModel& model, const at::Tensor& prompt,
                               const GenerationParams& params = {}, const at::Tensor& lengths = {});

}  // namespace attend
