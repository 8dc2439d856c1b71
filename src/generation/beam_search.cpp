#include "generation/beam_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "generation/token_model.h"

namespace attend::generation {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// A continuation of a prompt.
struct Hypothesis {
  std::vector<int64_t> tokens;
  double log_probability = kMinusInfinity;
  int64_t sequence = 0;  ///< index of the model's sequence that it continues

  double score(double length_penalty) const {
    return log_probability / std::pow(static_cast<double>(tokens.size()), length_penalty);
  }
};

/// The beams of one prompt, and the best complete hypothesis.
class Beams {
 public:
  Beams(int64_t sequence, const GenerationParams& params) : params_(params) {
    running_.push_back({{}, 0, sequence});
  }

  const std::vector<Hypothesis>& running() const { return running_; }

  /// Extends the running hypotheses by a token; row i of `log_probabilities` [running, V] is for the i-th.
  void step(const at::Tensor& log_probabilities) {
    const int64_t vocabulary = log_probabilities.size(1);
    std::vector<double> totals;
    totals.reserve(running_.size());
    for (const auto& hypothesis : running_) totals.push_back(hypothesis.log_probability);
    const auto scores = (log_probabilities + at::tensor(totals, at::kDouble).unsqueeze(1)).flatten();
    // At most one continuation of each hypothesis is complete, so 2 * num_beams of them leave num_beams
    // running.
    const auto [values, indices] = at::topk(scores, std::min(2 * params_.num_beams, scores.numel()));
    std::vector<Hypothesis> next;
    for (int64_t n = 0; n < values.numel(); ++n) {
      const int64_t index = indices[n].item<int64_t>(), token = index % vocabulary;
      const auto& parent = running_[static_cast<size_t>(index / vocabulary)];
      Hypothesis hypothesis{parent.tokens, values[n].item<double>(), parent.sequence};
      if (hypothesis.log_probability == kMinusInfinity) break;
      hypothesis.tokens.push_back(token);
      if (token == params_.eos_token_id) {
        complete(hypothesis);
      } else if (static_cast<int64_t>(next.size()) < params_.num_beams) {
        next.push_back(std::move(hypothesis));
      }
    }
    running_ = std::move(next);
    if (is_decided()) running_.clear();
  }

  /// Completes the running hypotheses and returns the best of all.
  Hypothesis best() {
    for (const auto& hypothesis : running_) complete(hypothesis);
    return best_;
  }

  /// Numbers the running hypotheses after the model has selected their sequences.
  void renumber(int64_t first) {
    for (auto& hypothesis : running_) hypothesis.sequence = first++;
  }

 private:
  void complete(const Hypothesis& hypothesis) {
    const bool is_first = best_.log_probability == kMinusInfinity;
    if (is_first || hypothesis.score(params_.length_penalty) > best_.score(params_.length_penalty)) {
      best_ = hypothesis;
    }
  }

  /// Whether no running hypothesis can reach a larger score than the best. Its log probability never
  /// increases, so its score is bounded by that log probability at the length, among those it can still have,
  /// that gives the largest quotient: the maximum length with a positive penalty, the next length otherwise.
  bool is_decided() const {
    if (best_.log_probability == kMinusInfinity) return false;
    return std::ranges::all_of(running_, [this](const Hypothesis& hypothesis) {
      const double length = static_cast<double>(params_.length_penalty > 0
                                                    ? params_.max_new_tokens
                                                    : static_cast<int64_t>(hypothesis.tokens.size()) + 1);
      const double bound = hypothesis.log_probability / std::pow(length, params_.length_penalty);
      return bound <= best_.score(params_.length_penalty);
    });
  }

  const GenerationParams& params_;
  std::vector<Hypothesis> running_;
  Hypothesis best_;
};

/// The best hypothesis of each prompt, padded with eos_token_id to a common length.
Generation collect(std::vector<Beams>& prompts, const GenerationParams& params, at::Device device) {
  std::vector<Hypothesis> best;
  size_t length = 0;
  for (auto& beams : prompts) {
    best.push_back(beams.best());
    length = std::max(length, best.back().tokens.size());
  }
  const auto batch = static_cast<int64_t>(prompts.size());
  auto tokens = at::full({batch, static_cast<int64_t>(length)}, params.eos_token_id.value_or(0), at::kLong);
  std::vector<double> log_probability;
  for (int64_t b = 0; b < batch; ++b) {
    const auto& hypothesis = best[static_cast<size_t>(b)];
    std::ranges::copy(hypothesis.tokens, tokens[b].mutable_data_ptr<int64_t>());
    log_probability.push_back(hypothesis.log_probability);
  }
  return {tokens.to(device), at::tensor(log_probability, at::kDouble)};
}

}  // namespace

Generation beam_search(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                       const at::Tensor& lengths) {
  std::vector<Beams> prompts;
  for (int64_t b = 0; b < prompt.size(0); ++b) prompts.emplace_back(b, params);
  auto model_input = prompt;
  for (int64_t step = 0; step < params.max_new_tokens; ++step) {
    const auto log_probabilities =
        next_log_probabilities(model, model_input, step == 0 ? lengths : at::Tensor());
    std::vector<int64_t> sequences, tokens;
    int64_t row = 0;
    for (auto& beams : prompts) {
      const auto num_running = static_cast<int64_t>(beams.running().size());
      if (num_running > 0) beams.step(log_probabilities.narrow(0, row, num_running));
      row += num_running;
      for (const auto& hypothesis : beams.running()) {
        sequences.push_back(hypothesis.sequence);
        tokens.push_back(hypothesis.tokens.back());
      }
      beams.renumber(static_cast<int64_t>(sequences.size() - beams.running().size()));
    }
    if (sequences.empty() || step + 1 == params.max_new_tokens) break;
    model.select(at::tensor(sequences, at::kLong));
    model_input = at::tensor(tokens, at::kLong).unsqueeze(1).to(prompt.device());
  }
  return collect(prompts, params, prompt.device());
}

}  // namespace attend::generation
