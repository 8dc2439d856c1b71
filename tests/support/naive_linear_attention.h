#pragma once

#include <torch/torch.h>

#include <vector>

namespace attend::testing {

/// Linear attention as the papers define it, computed in loops over float64 tensors [B, H, L, D] to which the
/// feature map was applied. The library is compared with it, and it shares no code with the library.
struct NaiveLinearAttention {
  bool normalize = false;
  bool is_causal = true;
  double scale = 1;
  torch::Tensor decay = {};  ///< [B, H, L, D], the decay of each step and channel, not its logarithm
  torch::Tensor beta = {};   ///< [B, H, L]

  torch::Tensor operator()(const torch::Tensor& query, const torch::Tensor& key,
                           const torch::Tensor& value) const {
    auto output = torch::zeros({query.size(0), query.size(1), query.size(2), value.size(3)}, torch::kDouble);
    for (int64_t b = 0; b < query.size(0); ++b) {
      for (int64_t h = 0; h < query.size(1); ++h) {
        const int64_t of_key = h / (query.size(1) / key.size(1));
        const auto q = query[b][h], k = key[b][of_key], v = value[b][of_key];
        const auto a = decay.defined() ? decay[b][h] : torch::ones_like(k);
        output[b][h].copy_(beta.defined() ? by_transitions(q, k, v, a, beta[b][h]) : by_pairs(q, k, v, a));
      }
    }
    return output;
  }

 private:
  /// Computes the parallel form: query i weights value j by the sum over d of q_id k_jd times the decays of
  /// the steps after j (Katharopoulos 2020, equation 8; Sun 2023, equation 5; Yang 2023, equation 4).
  torch::Tensor by_pairs(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                         const torch::Tensor& a) const {
    const int64_t queries = q.size(0), keys = k.size(0);
    auto output = torch::zeros({queries, v.size(1)}, torch::kDouble);
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t last = is_causal ? i + keys - queries : keys - 1;
      auto decayed = torch::ones({k.size(1)}, torch::kDouble);
      double sum = 0;
      for (int64_t j = last; j >= 0; --j) {
        const double weight = (q[i] * decayed * k[j]).sum().item<double>();
        sum += weight;
        output[i] += scale * weight * v[j];
        decayed = decayed * a[j];
      }
      if (normalize) output[i] = sum == 0 ? torch::zeros_like(output[i]) : output[i] / sum;
    }
    return output;
  }

  /// Computes the state by transition matrices, S_t = (I - beta_t k_t k_t^T) Diag(a_t) S_{t-1} + beta_t k_t
  /// v_t^T (Yang, Kautz 2024, equation 10; Kimi Team 2025, equation 1).
  torch::Tensor by_transitions(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                               const torch::Tensor& a, const torch::Tensor& strength) const {
    auto state = torch::zeros({k.size(1), v.size(1)}, torch::kDouble);
    auto outputs = torch::zeros({q.size(0), v.size(1)}, torch::kDouble);
    const int64_t offset = k.size(0) - q.size(0);
    for (int64_t t = 0; t < k.size(0); ++t) {
      const auto unit = torch::eye(k.size(1), torch::kDouble);
      const auto transition = (unit - strength[t] * torch::outer(k[t], k[t])).matmul(torch::diag(a[t]));
      state = transition.matmul(state) + strength[t] * torch::outer(k[t], v[t]);
      if (is_causal && t >= offset) outputs[t - offset] = scale * q[t - offset].matmul(state);
    }
    if (!is_causal) outputs = scale * q.matmul(state);
    return outputs;
  }
};

}  // namespace attend::testing
