#include "generation/beam_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "generation/scores.h"
#include "generation/token_model.h"

namespace attend::generation {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// A continuation of a prompt.
struct Hypothesis {
  std::vector<int64_t> tokens;
  double log_probability = kMinusInfinity;
  double total = kMinusInfinity;  ///< the sum of the processed log probabilities of its tokens
  int64_t sequence = 0;           ///< the index of the model's sequence that the hypothesis continues

  double score(double length_penalty) const {
    return total / std::pow(static_cast<double>(tokens.size()), length_penalty);
  }
};

/// The beams of one prompt, and the best complete hypothesis.
class Beams {
 public:
  Beams(int64_t sequence, const GenerationParams& params) : params_(params) {
    running_.push_back({{}, 0, 0, sequence});
  }

  const std::vector<Hypothesis>& running() const { return running_; }

  /// Extends the running hypotheses by a token. Row i of `log_probabilities` and of `processed`, both
  /// [running, V], belongs to running hypothesis i.
  void step(const at::Tensor& log_probabilities, const at::Tensor& processed) {
    const int64_t vocabulary = log_probabilities.size(1);
    std::vector<double> totals;
    totals.reserve(running_.size());
    for (const auto& hypothesis : running_) totals.push_back(hypothesis.total);
    const auto scores = (processed + at::tensor(totals, at::kDouble).unsqueeze(1)).flatten();
    const auto [values, indices] = at::topk(scores, std::min(num_candidates(), scores.numel()));
    std::vector<Hypothesis> next;
    for (int64_t n = 0; n < values.numel(); ++n) {
      const int64_t index = indices[n].item<int64_t>(), token = index % vocabulary;
      const auto& parent = running_[static_cast<size_t>(index / vocabulary)];
      Hypothesis hypothesis{.tokens = parent.tokens,
                            .log_probability = parent.log_probability +
                                               log_probabilities[index / vocabulary][token].item<double>(),
                            .total = values[n].item<double>(),
                            .sequence = parent.sequence};
      if (hypothesis.total == kMinusInfinity) break;
      hypothesis.tokens.push_back(token);
      if (is_eos(token)) {
        complete(hypothesis);
      } else if (static_cast<int64_t>(next.size()) < params_.num_beams) {
        next.push_back(std::move(hypothesis));
      }
    }
    running_ = std::move(next);
    if (is_decided()) running_.clear();
  }

  /// Completes the running hypotheses, and returns the best of all complete hypotheses.
  Hypothesis best() {
    for (const auto& hypothesis : running_) complete(hypothesis);
    return best_;
  }

  /// Sets the sequence indices of the running hypotheses, after the model has selected their sequences.
  void renumber(int64_t first) {
    for (auto& hypothesis : running_) hypothesis.sequence = first++;
  }

 private:
  bool is_eos(int64_t token) const {
    return std::ranges::find(params_.eos_token_id.ids, token) != params_.eos_token_id.ids.end();
  }

  /// Returns the number of best continuations among which at least num_beams are not complete: each
  /// hypothesis has at most one complete continuation for each token that ends a sequence.
  int64_t num_candidates() const {
    const auto num_eos = static_cast<int64_t>(params_.eos_token_id.ids.size());
    return std::max<int64_t>(2, 1 + num_eos) * params_.num_beams;
  }

  void complete(const Hypothesis& hypothesis) {
    const bool is_first = best_.total == kMinusInfinity;
    if (is_first || hypothesis.score(params_.length_penalty) > best_.score(params_.length_penalty)) {
      best_ = hypothesis;
    }
  }

  /// Whether no running hypothesis can exceed the best score. Without a logits_processor, the total of a
  /// hypothesis never increases, so its score is at most total / length^penalty at the most favourable length
  /// that it can still reach: the maximum length if the penalty is positive, otherwise the next length.
  bool is_decided() const {
    if (best_.total == kMinusInfinity || !params_.logits_processor.empty()) return false;
    return std::ranges::all_of(running_, [this](const Hypothesis& hypothesis) {
      const double length = static_cast<double>(params_.length_penalty > 0
                                                    ? params_.max_new_tokens
                                                    : static_cast<int64_t>(hypothesis.tokens.size()) + 1);
      const double bound = hypothesis.total / std::pow(length, params_.length_penalty);
      return bound <= best_.score(params_.length_penalty);
    });
  }

  const GenerationParams& params_;
  std::vector<Hypothesis> running_;
  Hypothesis best_;
};

/// Returns the best hypothesis of each prompt, padded to a common length.
Generation collect(std::vector<Beams>& prompts, const GenerationParams& params, at::Device device) {
  std::vector<Hypothesis> best;
  best.reserve(prompts.size());
  size_t length = 0;
  for (auto& beams : prompts) {
    best.push_back(beams.best());
    length = std::max(length, best.back().tokens.size());
  }
  const auto batch = static_cast<int64_t>(prompts.size());
  const auto tokens = at::full({batch, static_cast<int64_t>(length)}, pad_token(params), at::kLong);
  std::vector<double> log_probability;
  for (int64_t b = 0; b < batch; ++b) {
    const auto& hypothesis = best[static_cast<size_t>(b)];
    std::ranges::copy(hypothesis.tokens, tokens[b].mutable_data_ptr<int64_t>());
    log_probability.push_back(hypothesis.log_probability);
  }
  return {tokens.to(device), at::tensor(log_probability, at::kDouble)};
}

/// Returns the tokens so far of every running hypothesis. The hypotheses of prompt b are in `prompts[b]`.
History history_of_running(const std::vector<Beams>& prompts, const History& history) {
  std::vector<int64_t> rows, tokens;
  for (size_t b = 0; b < prompts.size(); ++b) {
    for (const auto& hypothesis : prompts[b].running()) {
      rows.push_back(static_cast<int64_t>(b));
      tokens.insert(tokens.end(), hypothesis.tokens.begin(), hypothesis.tokens.end());
    }
  }
  const auto count = static_cast<int64_t>(rows.size());
  const auto generated = at::tensor(tokens, at::kLong)
                             .view({count, count == 0 ? 0 : static_cast<int64_t>(tokens.size()) / count});
  const auto selected = at::tensor(rows, at::kLong);
  return {at::cat({at::index_select(history.tokens, 0, selected), generated}, 1),
          history.padding.defined() ? at::index_select(history.padding, 0, selected) : at::Tensor()};
}

}  // namespace

Generation beam_search(const TokenModel& model, const at::Tensor& prompt, const GenerationParams& params,
                       const at::Tensor& lengths) {
  std::vector<Beams> prompts;
  prompts.reserve(static_cast<size_t>(prompt.size(0)));
  for (int64_t b = 0; b < prompt.size(0); ++b) prompts.emplace_back(b, params);
  const auto history = history_of(prompt, lengths);
  auto model_input = prompt;
  for (int64_t step = 0; step < params.max_new_tokens; ++step) {
    const auto log_probabilities =
        next_token(model, model_input, step == 0 ? lengths : at::Tensor()).log_probabilities;
    const auto processed =
        changes_scores(params)
            ? process_scores(log_probabilities, history_of_running(prompts, history), step, params)
            : log_probabilities;
    std::vector<int64_t> sequences, tokens;
    int64_t row = 0;
    for (auto& beams : prompts) {
      const auto num_running = static_cast<int64_t>(beams.running().size());
      if (num_running > 0) {
        beams.step(log_probabilities.narrow(0, row, num_running), processed.narrow(0, row, num_running));
      }
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
