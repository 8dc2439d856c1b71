#include <ATen/core/grad_mode.h>
#include <ATen/ops/aminmax.h>
#include <attend/generation.h>

#include <cmath>

#include "core/checks.h"
#include "generation/beam_search.h"
#include "generation/sampling.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

constexpr auto kName = "generate";

void check_params(const GenerationParams& params) {
  if (params.max_new_tokens < 0) fail(kName, "max_new_tokens", "at least 0", c10::str(params.max_new_tokens));
  if (!(params.temperature >= 0 && std::isfinite(params.temperature))) {
    fail(kName, "temperature", "a finite value of at least 0", c10::str(params.temperature));
  }
  if (params.top_k < 0) fail(kName, "top_k", "at least 0", c10::str(params.top_k));
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    fail(kName, "top_p", "a probability in (0, 1]", c10::str(params.top_p));
  }
  if (params.generator && !params.generator->device().is_cpu()) {
    fail(kName, "generator", "a generator of the CPU, where tokens are sampled",
         c10::str("a generator of ", params.generator->device()));
  }
  if (!(params.min_p >= 0 && params.min_p <= 1)) {
    fail(kName, "min_p", "a value in [0, 1]", c10::str(params.min_p));
  }
  if (params.temperature == 0 && (params.top_k > 0 || params.top_p < 1)) {
    fail(kName, "temperature", "more than 0 with top_k or top_p", "0");
  }
  if (params.temperature == 0 && params.min_p > 0) fail(kName, "temperature", "more than 0 with min_p", "0");
  if (params.num_beams < 1) fail(kName, "num_beams", "at least 1", c10::str(params.num_beams));
  if (!std::isfinite(params.length_penalty)) {
    fail(kName, "length_penalty", "a finite value", c10::str(params.length_penalty));
  }
}

void check_score_params(const GenerationParams& params) {
  for (const auto id : params.eos_token_id.ids) {
    if (id < 0) fail(kName, "eos_token_id", "tokens of at least 0", c10::str(id));
  }
  if (params.min_new_tokens < 0 || params.min_new_tokens > params.max_new_tokens) {
    fail(kName, "min_new_tokens", c10::str("0 ... ", params.max_new_tokens, ", max_new_tokens"),
         c10::str(params.min_new_tokens));
  }
  if (!(params.repetition_penalty > 0 && std::isfinite(params.repetition_penalty))) {
    fail(kName, "repetition_penalty", "a finite value above 0", c10::str(params.repetition_penalty));
  }
  for (const auto& process : params.logits_processor) {
    if (!process) fail(kName, "logits_processor", "functions", "none");
  }
}

void check_model(const TokenModel& model, const GenerationParams& params) {
  if (!model.logits) fail(kName, "model.logits", "a function", "none");
  if (params.num_beams == 1) return;
  if (params.streamer) fail(kName, "streamer", "none with beam search", "one");
  if (!model.select) fail(kName, "model.select", "a function, for beam search", "none");
  if (params.temperature > 0) fail(kName, "num_beams", "1 with a temperature", c10::str(params.num_beams));
}

/// Fails unless each prompt has at least one token: the model continues from its logits.
void check_lengths(const at::Tensor& lengths, const at::Tensor& prompt) {
  if (!lengths.defined()) return;
  checks::check_strided(kName, "lengths", lengths);
  const int64_t batch = prompt.size(0), longest = prompt.size(1);
  if (lengths.scalar_type() != at::kLong || !lengths.sizes().equals(batch)) {
    fail(kName, "lengths", c10::str("int64 [", batch, "]"), describe(lengths));
  }
  if (batch == 0) return;
  const auto [least, most] = at::aminmax(lengths);
  const auto first = least.item<int64_t>(), last = most.item<int64_t>();
  if (first < 1 || last > longest) {
    fail(kName, "lengths", c10::str("1 ... ", longest), c10::str(first, " ... ", last));
  }
}

}  // namespace

Generation generate(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                    const at::Tensor& lengths) {
  check_params(params);
  check_score_params(params);
  check_model(model, params);
  checks::check_strided(kName, "prompt", prompt);
  if (prompt.scalar_type() != at::kLong || prompt.dim() != 2 || prompt.size(1) < 1) {
    fail(kName, "prompt", "int64 [B, L] with L of at least 1", describe(prompt));
  }
  check_lengths(lengths, prompt);
  const at::NoGradGuard no_grad;
  return params.num_beams > 1 ? generation::beam_search(model, prompt, params, lengths)
                              : generation::sample(model, prompt, params, lengths);
}

}  // namespace attend
