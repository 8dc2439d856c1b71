#include <ATen/core/grad_mode.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/log_softmax.h>
#include <attend/generation.h>

#include <cmath>

#include "core/checks.h"
#include "generation/generation.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

constexpr auto kName = "generate";

void check_params(const GenerationParams& params) {
  if (params.max_tokens < 0) fail(kName, "max_tokens", "at least 0", c10::str(params.max_tokens));
  if (!(params.temperature >= 0 && std::isfinite(params.temperature))) {
    fail(kName, "temperature", "a number of at least 0", c10::str(params.temperature));
  }
  if (params.top_k < 0) fail(kName, "top_k", "at least 0", c10::str(params.top_k));
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    fail(kName, "top_p", "a probability in (0, 1]", c10::str(params.top_p));
  }
  if (params.generator && !params.generator->device().is_cpu()) {
    fail(kName, "generator", "one of the CPU, where tokens are drawn",
         c10::str("one of ", params.generator->device()));
  }
  if (params.temperature == 0 && (params.top_k > 0 || params.top_p < 1)) {
    fail(kName, "temperature", "more than 0 with top_k or top_p", "0");
  }
  if (params.beams < 1) fail(kName, "beams", "at least 1", c10::str(params.beams));
  if (!std::isfinite(params.length_penalty)) {
    fail(kName, "length_penalty", "a finite number", c10::str(params.length_penalty));
  }
}

void check_model(const TokenModel& model, const GenerationParams& params) {
  if (!model.logits) fail(kName, "model", "a function of the logits", "none");
  if (params.beams == 1) return;
  if (!model.select) fail(kName, "model", "a function that selects sequences, for beams", "none");
  if (params.temperature > 0) fail(kName, "beams", "1 with a temperature", c10::str(params.beams));
}

/// Fails unless each prompt has a token, whose logits begin it.
void check_counts(const at::Tensor& counts, const at::Tensor& prompt) {
  if (!counts.defined()) return;
  checks::is_strided(kName, "counts", counts);
  const int64_t batch = prompt.size(0), length = prompt.size(1);
  if (counts.scalar_type() != at::kLong || !counts.sizes().equals(batch)) {
    fail(kName, "counts", c10::str("int64 [", batch, "]"), describe(counts));
  }
  if (batch == 0) return;
  const auto [least, most] = at::aminmax(counts);
  const auto first = least.item<int64_t>(), last = most.item<int64_t>();
  if (first < 1 || last > length) {
    fail(kName, "counts", c10::str("1 ... ", length), c10::str(first, " ... ", last));
  }
}

}  // namespace

namespace generation {

at::Tensor read(const TokenModel& model, const at::Tensor& tokens, const at::Tensor& counts) {
  const auto logits = model.logits(tokens, counts);
  checks::is_strided(kName, "logits", logits);
  checks::is_floating(kName, "logits", logits);
  if (logits.dim() != 2 || logits.size(0) != tokens.size(0) || logits.size(1) < 1) {
    fail(kName, "logits", c10::str("[", tokens.size(0), ", V]"), describe(logits));
  }
  const auto log_probabilities = at::log_softmax(logits.to(at::kDouble), -1).cpu();
  if (log_probabilities.isnan().any().item<bool>())
    fail(kName, "logits", "numbers of which one is finite", "NaN");
  return log_probabilities;
}

}  // namespace generation

Generation generate(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                    const at::Tensor& counts) {
  check_params(params);
  check_model(model, params);
  checks::is_strided(kName, "prompt", prompt);
  if (prompt.scalar_type() != at::kLong || prompt.dim() != 2 || prompt.size(1) < 1) {
    fail(kName, "prompt", "int64 [B, L] with L of at least 1", describe(prompt));
  }
  check_counts(counts, prompt);
  const at::NoGradGuard no_grad;
  return params.beams > 1 ? generation::beam_search(model, prompt, params, counts)
                          : generation::token_by_token(model, prompt, params, counts);
}

}  // namespace attend
