#include "generation/sampling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <vector>

#include "generation/token_model.h"

namespace attend::generation {
namespace {

constexpr double kMaskedLogit = -std::numeric_limits<double>::infinity();

/// Sets all logits but the k largest of each row to -inf.
at::Tensor keep_top_k(const at::Tensor& logits, int64_t k) {
  if (k == 0 || k >= logits.size(-1)) return logits;
  const auto [values, indices] = at::topk(logits, k);
  return at::full_like(logits, kMaskedLogit).scatter_(-1, indices, values);
}

/// Sets all logits outside of the nucleus to -inf: a token is kept if the more likely ones have a total
/// probability below p.
at::Tensor keep_top_p(const at::Tensor& logits, double p) {
  if (p == 1) return logits;
  const auto [values, indices] = at::sort(logits, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const auto probabilities = at::softmax(values, -1);
  const auto before = probabilities.cumsum(-1) - probabilities;
  const auto kept = values.masked_fill(before >= p, kMaskedLogit);
  return at::full_like(logits, kMaskedLogit).scatter_(-1, indices, kept);
}

/// The next token of each row: [B, V] -> [B, 1].
at::Tensor next_tokens(const at::Tensor& log_probabilities, const GenerationParams& params) {
  if (params.temperature == 0) return at::argmax(log_probabilities, -1, /*keepdim=*/true);
  // The largest logit becomes 0, so that it stays finite at any temperature.
  const auto shifted = log_probabilities - log_probabilities.amax(-1, /*keepdim=*/true);
  const auto logits = keep_top_p(keep_top_k(shifted / params.temperature, params.top_k), params.top_p);
  return at::multinomial(at::softmax(logits, -1), 1, /*replacement=*/false, params.generator);
}

}  // namespace

Generation sample(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                  const at::Tensor& lengths) {
  const int64_t batch = prompt.size(0);
  auto is_complete = at::zeros({batch, 1}, at::kBool);
  auto total = at::zeros({batch, 1}, at::kDouble);
  std::vector<at::Tensor> steps;
  for (auto tokens = prompt; static_cast<int64_t>(steps.size()) < params.max_new_tokens;) {
    const auto log_probabilities =
        next_log_probabilities(model, tokens, steps.empty() ? lengths : at::Tensor());
    auto next = next_tokens(log_probabilities, params);
    total += at::gather(log_probabilities, -1, next).masked_fill(is_complete, 0);
    if (const auto& eos = params.eos_token_id) {
      next = next.masked_fill(is_complete, *eos);
      is_complete = is_complete | (next == *eos);
    }
    steps.push_back(next);
    if (is_complete.all().item<bool>()) break;
    tokens = next.to(prompt.device());
  }
  const auto generated = steps.empty() ? at::empty({batch, 0}, at::kLong) : at::cat(steps, 1);
  return {generated.to(prompt.device()), total.squeeze(1)};
}

}  // namespace attend::generation
