#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "generation/generation.h"

namespace attend::generation {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// A sequence that is being written, or is complete.
struct Hypothesis {
  std::vector<int64_t> tokens;
  double log_probability = kNever;
  int64_t sequence = 0;  ///< of the model's, from which it came

  double score(double length_penalty) const {
    return log_probability / std::pow(static_cast<double>(tokens.size()), length_penalty);
  }
};

/// The beams of one prompt.
class Beams {
 public:
  Beams(int64_t sequence, const GenerationParams& params) : params_(params) {
    running_.push_back({{}, 0, sequence});
  }

  const std::vector<Hypothesis>& running() const { return running_; }

  /// `log_probabilities`: [beams, V] of the running ones, in order.
  void step(const at::Tensor& log_probabilities) {
    const int64_t vocabulary = log_probabilities.size(1);
    std::vector<double> before;
    before.reserve(running_.size());
    for (const auto& hypothesis : running_) before.push_back(hypothesis.log_probability);
    const auto scores = (log_probabilities + at::tensor(before, at::kDouble).unsqueeze(1)).flatten();
    // At most one continuation of each beam is the end, so that twice as many leave enough that are not.
    const auto [values, indices] = at::topk(scores, std::min(2 * params_.beams, scores.numel()));
    std::vector<Hypothesis> next;
    for (int64_t n = 0; n < values.numel(); ++n) {
      const int64_t index = indices[n].item<int64_t>(), token = index % vocabulary;
      const auto& from = running_[static_cast<size_t>(index / vocabulary)];
      Hypothesis hypothesis{from.tokens, values[n].item<double>(), from.sequence};
      if (hypothesis.log_probability == kNever) break;
      hypothesis.tokens.push_back(token);
      if (token == params_.end_token) {
        keep(hypothesis);
      } else if (static_cast<int64_t>(next.size()) < params_.beams) {
        next.push_back(std::move(hypothesis));
      }
    }
    running_ = std::move(next);
    if (is_decided()) running_.clear();
  }

  Hypothesis best() {
    for (const auto& hypothesis : running_) keep(hypothesis);
    return best_;
  }

  /// After the model's sequences were chosen anew.
  void renumber(int64_t first) {
    for (auto& hypothesis : running_) hypothesis.sequence = first++;
  }

 private:
  void keep(const Hypothesis& hypothesis) {
    const bool is_first = best_.log_probability == kNever;
    if (is_first || hypothesis.score(params_.length_penalty) > best_.score(params_.length_penalty)) {
      best_ = hypothesis;
    }
  }

  /// Whether no running beam can overtake the best: log probabilities only fall, and count least at one of
  /// the two ends of the lengths that are left.
  bool is_decided() const {
    if (best_.log_probability == kNever) return false;
    return std::ranges::all_of(running_, [this](const Hypothesis& hypothesis) {
      const double length = static_cast<double>(params_.length_penalty > 0
                                                    ? params_.max_tokens
                                                    : static_cast<int64_t>(hypothesis.tokens.size()) + 1);
      const double attainable = hypothesis.log_probability / std::pow(length, params_.length_penalty);
      return attainable <= best_.score(params_.length_penalty);
    });
  }

  const GenerationParams& params_;
  std::vector<Hypothesis> running_;
  Hypothesis best_;
};

/// Tokens and score of the best of each prompt, filled up with the end token.
Generation gathered(std::vector<Beams>& all, const GenerationParams& params, at::Device device) {
  std::vector<Hypothesis> best;
  size_t length = 0;
  for (auto& beams : all) {
    best.push_back(beams.best());
    length = std::max(length, best.back().tokens.size());
  }
  const auto batch = static_cast<int64_t>(all.size());
  auto tokens = at::full({batch, static_cast<int64_t>(length)}, params.end_token.value_or(0), at::kLong);
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
                       const at::Tensor& counts) {
  std::vector<Beams> all;
  for (int64_t b = 0; b < prompt.size(0); ++b) all.emplace_back(b, params);
  auto given = prompt;
  for (int64_t step = 0; step < params.max_tokens; ++step) {
    const auto log_probabilities = read(model, given, step == 0 ? counts : at::Tensor());
    std::vector<int64_t> sequences, tokens;
    int64_t row = 0;
    for (auto& beams : all) {
      const auto count = static_cast<int64_t>(beams.running().size());
      if (count > 0) beams.step(log_probabilities.narrow(0, row, count));
      row += count;
      for (const auto& hypothesis : beams.running()) {
        sequences.push_back(hypothesis.sequence);
        tokens.push_back(hypothesis.tokens.back());
      }
      beams.renumber(static_cast<int64_t>(sequences.size() - beams.running().size()));
    }
    if (sequences.empty() || step + 1 == params.max_tokens) break;
    model.select(at::tensor(sequences, at::kLong));
    given = at::tensor(tokens, at::kLong).unsqueeze(1).to(prompt.device());
  }
  return gathered(all, params, prompt.device());
}

}  // namespace attend::generation
