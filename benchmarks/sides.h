#pragma once

// Helpers from which the rows are built.

#include <attend/attend.h>
#include <torch/torch.h>

#include "row.h"

namespace attend::benchmarks {

struct Sizes {
  int64_t batch, heads, kv_heads, queries, keys, d;

  static Sizes self(int64_t heads, int64_t length, int64_t d) { return {1, heads, heads, length, length, d}; }

  /// Returns the number of floating-point operations of a forward pass that computes all scores.
  double forward_flops() const {
    return 4.0 * static_cast<double>(batch * heads * queries) * static_cast<double>(keys * d);
  }
  double training_flops() const { return 3.5 * forward_flops(); }
};

struct Inputs {
  torch::Tensor query, key, value;

  explicit Inputs(const Sizes& s, torch::ScalarType dtype = torch::kFloat)
      : query(torch::randn({s.batch, s.heads, s.queries, s.d}).to(dtype)),
        key(torch::randn({s.batch, s.kv_heads, s.keys, s.d}).to(dtype)),
        value(torch::randn({s.batch, s.kv_heads, s.keys, s.d}).to(dtype)) {}

  /// Returns copies that require gradients.
  Inputs trained() const {
    auto leaves = *this;
    for (auto* tensor : {&leaves.query, &leaves.key, &leaves.value}) {
      *tensor = tensor->detach().clone().requires_grad_();
    }
    return leaves;
  }

  Tensors all() const { return {query, key, value}; }
};

using Attention = std::function<torch::Tensor()>;

inline Side forward(Attention attention) {
  return [attention] { return Tensors{attention()}; };
}

/// Returns a side that computes the output, and the gradients of the leaves for a fixed gradient of the
/// output.
inline Side forward_backward(Attention attention, Tensors leaves) {
  return [attention, leaves] {
    const at::AutoGradMode graph(true);
    const auto output = attention();
    const auto direction = torch::linspace(-1, 1, output.size(-1), output.options()).expand_as(output);
    auto results = torch::autograd::grad({output}, leaves, {direction});
    results.push_back(output.detach());
    return results;
  };
}

inline Attention ours(const Inputs& in, const AttentionParams& params = {}) {
  return [=] { return attend::attention(in.query, in.key, in.value, params); };
}

struct SdpaParams {
  torch::Tensor attn_mask = {};
  double dropout_p = 0;
  bool is_causal = false;
};

inline Attention sdpa(const Inputs& in, const SdpaParams& params = {}) {
  const bool is_grouped = in.query.size(1) != in.key.size(1);
  const auto mask =
      params.attn_mask.defined() ? std::optional<torch::Tensor>(params.attn_mask) : std::nullopt;
  return [=] {
    return at::scaled_dot_product_attention(in.query, in.key, in.value, mask, params.dropout_p,
                                            params.is_causal, std::nullopt, is_grouped);
  };
}

}  // namespace attend::benchmarks
