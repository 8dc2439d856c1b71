#pragma once

#include <attend/attention.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>

namespace attend::testing {

/// Attention as the papers define it, computed score by score in loops over float64 tensors [B, H, L, D]. The
/// library is compared with it, and it shares no code with the library.
struct NaiveAttention {
  double scale = 1;
  std::function<bool(int64_t b, int64_t h, int64_t i, int64_t j)> allowed = [](auto...) { return true; };
  std::function<double(double score, int64_t b, int64_t h, int64_t i, int64_t j)> score_mod =
      [](double score, auto...) { return score; };
  Weighting weighting = Weighting::softmax;

  struct Result {
    torch::Tensor output, logsumexp, weights;
  };

  Result operator()(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value) const {
    const auto q = query.accessor<double, 4>(), k = key.accessor<double, 4>(),
               v = value.accessor<double, 4>();
    const int64_t group = k.size(1) == 0 ? 1 : q.size(1) / k.size(1);
    Result result{torch::zeros({q.size(0), q.size(1), q.size(2), v.size(3)}, torch::kDouble),
                  torch::zeros({q.size(0), q.size(1), q.size(2)}, torch::kDouble),
                  torch::zeros({q.size(0), q.size(1), q.size(2), k.size(2)}, torch::kDouble)};
    auto output = result.output.accessor<double, 4>();
    auto logsumexp = result.logsumexp.accessor<double, 3>();
    auto weights = result.weights.accessor<double, 4>();
    for (int64_t b = 0; b < q.size(0); ++b) {
      for (int64_t h = 0; h < q.size(1); ++h) {
        for (int64_t i = 0; i < q.size(2); ++i) {
          double largest = -INFINITY, sum = 0;
          for (int64_t j = 0; j < k.size(2); ++j) {
            double score = 0;
            if (!allowed(b, h, i, j)) {
              score = -INFINITY;
            } else {
              for (int64_t d = 0; d < q.size(3); ++d) score += q[b][h][i][d] * k[b][h / group][j][d];
              score = score_mod(score * scale, b, h, i, j);
            }
            weights[b][h][i][j] = score;
            largest = std::max(largest, score);
          }
          for (int64_t j = 0; j < k.size(2); ++j) {
            const double score = weights[b][h][i][j];
            sum += score == -INFINITY ? 0 : std::exp(score - largest);
          }
          logsumexp[b][h][i] = sum == 0 ? -INFINITY : std::log(sum) + largest;
          for (int64_t j = 0; j < k.size(2); ++j) {
            const double weight = weigh(weights[b][h][i][j], logsumexp[b][h][i]);
            weights[b][h][i][j] = weight;
            if (weight == 0) continue;
            for (int64_t d = 0; d < v.size(3); ++d) output[b][h][i][d] += weight * v[b][h / group][j][d];
          }
        }
      }
    }
    return result;
  }

 private:
  double weigh(double score, double logsumexp) const {
    if (score == -INFINITY) return 0;
    if (weighting == Weighting::sigmoid) return 1 / (1 + std::exp(-score));
    if (weighting == Weighting::relu) return std::max(score, 0.0);
    return std::exp(score - logsumexp);
  }
};

}  // namespace attend::testing
