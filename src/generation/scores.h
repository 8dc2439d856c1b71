#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// The tokens so far of sequences that may begin with padding.
struct History {
  at::Tensor tokens;
  /// Int64 [B], the number of padding tokens before each prompt; undefined if there is no padding.
  at::Tensor padding;
};

/// Returns the history of prompts [B, L]. Prompt b is the last lengths[b] tokens, or all L tokens if
/// `lengths` is undefined.
History history_of(const at::Tensor& prompt, const at::Tensor& lengths);

/// Whether the parameters change the scores of the next token.
bool changes_scores(const GenerationParams& params);

/// Returns the scores [B, V] of the next token, float64 on the CPU, after the repetition penalty, the minimum
/// length and `logits_processor` were applied to a copy of `scores`. `num_new` tokens were generated so far.
at::Tensor process_scores(const at::Tensor& scores, const History& history, int64_t num_new,
                          const GenerationParams& params);

/// Returns for each token whether it ends its sequence, as a boolean tensor.
at::Tensor is_eos(const at::Tensor& tokens, const GenerationParams& params);

/// Returns the token with which sequences are padded after their end.
int64_t pad_token(const GenerationParams& params);

}  // namespace attend::generation
