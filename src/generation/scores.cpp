#include "generation/scores.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "core/checks.h"

namespace attend::generation {
namespace {

using checks::describe;
using checks::fail;

constexpr auto kGenerate = "generate";
constexpr double kExcluded = -std::numeric_limits<double>::infinity();

/// Returns the tokens of the history, with padding replaced by one of the tokens of the sequence. Fails if a
/// token is not in the vocabulary.
at::Tensor known_tokens(const History& history, int64_t vocabulary) {
  auto tokens = history.tokens;
  if (history.padding.defined()) {
    const auto is_padding = at::arange(tokens.size(1)) < history.padding.unsqueeze(1);
    tokens = at::where(is_padding, tokens.slice(1, -1), tokens);
  }
  const auto [least, largest] = at::aminmax(tokens);
  if (least.item<int64_t>() < 0 || largest.item<int64_t>() >= vocabulary) {
    fail(kGenerate, "prompt", c10::str("tokens in 0 ... ", vocabulary - 1, ", with a repetition penalty"),
         c10::str(least.item<int64_t>(), " ... ", largest.item<int64_t>()));
  }
  return tokens;
}

void penalise_repetition(at::Tensor& scores, const History& history, double penalty) {
  if (scores.size(0) == 0) return;
  const auto tokens = known_tokens(history, scores.size(1));
  const auto seen = at::gather(scores, 1, tokens);
  scores.scatter_(1, tokens, at::where(seen < 0, seen * penalty, seen / penalty));
}

void exclude(at::Tensor& scores, const TokenIds& tokens) {
  for (const auto id : tokens.ids) {
    if (id < scores.size(1)) scores.select(1, id).fill_(kExcluded);
  }
}

at::Tensor checked_result(const at::Tensor& result, const at::Tensor& scores) {
  constexpr auto kArgument = "logits_processor";
  checks::check_strided(kGenerate, kArgument, result);
  if (result.sizes() != scores.sizes() || !result.is_floating_point()) {
    fail(kGenerate, kArgument, c10::str("scores ", scores.sizes()), describe(result));
  }
  return result.to(scores.options());
}

}  // namespace

History history_of(const at::Tensor& prompt, const at::Tensor& lengths) {
  return {prompt.cpu(), lengths.defined() ? prompt.size(1) - lengths.cpu() : at::Tensor()};
}

bool changes_scores(const GenerationParams& params) {
  return params.repetition_penalty != 1 || params.min_new_tokens > 0 || !params.logits_processor.empty();
}

at::Tensor process_scores(const at::Tensor& given, const History& history, int64_t num_new,
                          const GenerationParams& params) {
  auto scores = given.clone();
  if (params.repetition_penalty != 1) penalise_repetition(scores, history, params.repetition_penalty);
  if (num_new < params.min_new_tokens) exclude(scores, params.eos_token_id);
  for (const auto& process : params.logits_processor) {
    scores = checked_result(process(history.tokens, scores), given);
  }
  if (scores.numel() > 0) {
    const auto largest = scores.amax(1);
    if (!largest.isfinite().all().item<bool>() || scores.isnan().any().item<bool>()) {
      fail(kGenerate, "logits_processor", "at least one finite score in each row, and no NaN or infinity",
           "a row without a token to choose");
    }
  }
  return scores;
}

at::Tensor is_eos(const at::Tensor& tokens, const GenerationParams& params) {
  const auto& ids = params.eos_token_id.ids;
  if (ids.empty()) return at::zeros(tokens.sizes(), at::kBool);
  return at::isin(tokens, at::tensor(ids, at::kLong));
}

int64_t pad_token(const GenerationParams& params) {
  const auto& ids = params.eos_token_id.ids;
  return params.pad_token_id.value_or(ids.empty() ? 0 : ids.front());
}

}  // namespace attend::generation
