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
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <vector>

#include "generation/generation.h"

namespace attend::generation {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// Hides all but the k likeliest tokens.
at::Tensor among_top_k(const at::Tensor& logits, int64_t k) {
  if (k == 0 || k >= logits.size(-1)) return logits;
  const auto [values, indices] = at::topk(logits, k);
  return at::full_like(logits, kNever).scatter_(-1, indices, values);
}

/// Hides what is outside of the nucleus: a token stays where those before it, the likeliest first, have less
/// than p together.
at::Tensor in_nucleus(const at::Tensor& logits, double p) {
  if (p == 1) return logits;
  const auto [values, indices] = at::sort(logits, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const auto probabilities = at::softmax(values, -1);
  const auto before = probabilities.cumsum(-1) - probabilities;
  return at::full_like(logits, kNever).scatter_(-1, indices, values.masked_fill(before >= p, kNever));
}

/// [B, V] -> [B, 1]
at::Tensor next_of(const at::Tensor& log_probabilities, const GenerationParams& params) {
  if (params.temperature == 0) return at::argmax(log_probabilities, -1, /*keepdim=*/true);
  // The likeliest at 0, so that no temperature makes all of them infinite.
  const auto below = log_probabilities - log_probabilities.amax(-1, /*keepdim=*/true);
  const auto logits = in_nucleus(among_top_k(below / params.temperature, params.top_k), params.top_p);
  return at::multinomial(at::softmax(logits, -1), 1, /*replacement=*/false, params.generator);
}

}  // namespace

Generation token_by_token(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                          const at::Tensor& counts) {
  const int64_t batch = prompt.size(0);
  auto is_complete = at::zeros({batch, 1}, at::kBool);
  auto total = at::zeros({batch, 1}, at::kDouble);
  std::vector<at::Tensor> tokens;
  for (auto given = prompt; static_cast<int64_t>(tokens.size()) < params.max_tokens;) {
    const auto log_probabilities = read(model, given, tokens.empty() ? counts : at::Tensor());
    auto next = next_of(log_probabilities, params);
    total += at::gather(log_probabilities, -1, next).masked_fill(is_complete, 0);
    if (const auto& end = params.end_token) {
      next = next.masked_fill(is_complete, *end);
      is_complete = is_complete | (next == *end);
    }
    tokens.push_back(next);
    if (is_complete.all().item<bool>()) break;
    given = next.to(prompt.device());
  }
  const auto written = tokens.empty() ? at::empty({batch, 0}, at::kLong) : at::cat(tokens, 1);
  return {written.to(prompt.device()), total.squeeze(1)};
}

}  // namespace attend::generation
