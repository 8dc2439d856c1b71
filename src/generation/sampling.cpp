#include "generation/sampling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "generation/nucleus.h"
#include "generation/scores.h"
#include "generation/token_model.h"

namespace attend::generation {
namespace {

/// Chooses the next token of each row: [B, V] -> [B, 1].
at::Tensor choose(const at::Tensor& log_probabilities, const GenerationParams& params) {
  if (params.temperature == 0) return at::argmax(log_probabilities, -1, /*keepdim=*/true);
  // The largest logit is shifted to 0, so that it is finite at any temperature.
  const auto shifted = log_probabilities - log_probabilities.amax(-1, /*keepdim=*/true);
  const auto logits = keep_top_p(keep_top_k(shifted / params.temperature, params.top_k), params.top_p);
  return at::multinomial(at::softmax(keep_min_p(logits, params.min_p), -1), 1, /*replacement=*/false,
                         params.generator);
}

}  // namespace

Generation sample(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                  const at::Tensor& lengths) {
  const int64_t batch = prompt.size(0);
  auto is_complete = at::zeros({batch, 1}, at::kBool);
  auto total = at::zeros({batch, 1}, at::kDouble);
  auto history = history_of(prompt, lengths);
  std::vector<at::Tensor> steps;
  for (auto tokens = prompt; static_cast<int64_t>(steps.size()) < params.max_new_tokens;) {
    const auto [logits, log_probabilities] =
        next_token(model, tokens, steps.empty() ? lengths : at::Tensor());
    auto preferred = log_probabilities;
    if (changes_scores(params)) {
      const auto num_new = static_cast<int64_t>(steps.size());
      preferred = at::log_softmax(process_scores(logits, history, num_new, params), -1);
    }
    const auto chosen = choose(preferred, params);
    if (changes_scores(params)) history.tokens = at::cat({history.tokens, chosen}, 1);
    total += at::gather(log_probabilities, -1, chosen).masked_fill(is_complete, 0);
    const auto next = chosen.masked_fill(is_complete, pad_token(params));
    is_complete = is_complete | is_eos(next, params);
    steps.push_back(next);
    tokens = next.to(prompt.device());
    if (params.streamer && !params.streamer(tokens.squeeze(1))) break;
    if (is_complete.all().item<bool>()) break;
  }
  const auto generated = steps.empty() ? at::empty({batch, 0}, at::kLong) : at::cat(steps, 1);
  return {generated.to(prompt.device()), total.squeeze(1)};
}

}  // namespace attend::generation
