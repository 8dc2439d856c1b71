#include "generation/token_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>

#include "core/checks.h"

namespace attend::generation {

NextToken next_token(const TokenModel& model, const at::Tensor& tokens, const at::Tensor& lengths) {
  constexpr auto kName = "generate";
  const auto logits = model.logits(tokens, lengths);
  checks::check_strided(kName, "logits", logits);
  checks::check_floating(kName, "logits", logits);
  if (logits.dim() != 2 || logits.size(0) != tokens.size(0) || logits.size(1) < 1) {
    checks::fail(kName, "logits", c10::str("[", tokens.size(0), ", V]"), checks::describe(logits));
  }
  const auto wide = logits.to(at::kDouble);
  const auto log_probabilities = at::log_softmax(wide, -1).cpu();
  if (log_probabilities.isnan().any().item<bool>()) {
    checks::fail(kName, "logits", "at least one finite element in each row, and no NaN",
                 "a row whose softmax is NaN");
  }
  return {wide.cpu(), log_probabilities};
}

}  // namespace attend::generation
