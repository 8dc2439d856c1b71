#pragma once

#include <attend/generation.h>

namespace attend::generation {

/// The tokens so far of sequences that may begin with padding: int64 [B, L] on the CPU.
struct History {
  at::Tensor tokens;
  at::Tensor padding;  ///< int64 [B], the number of tokens before the prompt; undefined for none
};

/// The history of prompts [B, L], of which sequence b is the last lengths[b] tokens; all of them if `lengths`
/// is undefined.
History history_of(const at::Tensor& prompt, const at::Tensor& lengths);

/// Whether the parameters change the scores of the next token.
bool changes_scores(const GenerationParams& params);

/// The scores [B, V] of the next token, float64 on the CPU, changed by the repetition penalty, the minimum
/// length and `logits_processor`; `num_new` tokens were generated so far. The given scores are not changed.
at::Tensor process_scores(const at::Tensor& scores, const History& history, int64_t num_new,
                          const GenerationParams& params);

/// Whether each of these tokens ends its sequence.
at::Tensor is_eos(const at::Tensor& tokens, const GenerationParams& params);

/// What follows the end of a sequence.
int64_t pad_token(const GenerationParams& params);

}  // namespace attend::generation
