#include <ATen/ops/empty.h>
#include <attend/additive_attention.h>
#include <attend/nn/additive_attention.h>
#include <torch/nn/init.h>

#include <cmath>
#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"

namespace attend::nn {
namespace {

constexpr auto kAdditiveAttention = "nn::AdditiveAttention";

/// Fails where the options no longer fit the parameters.
void check_sizes(const AdditiveAttentionImpl& module) {
  const auto& options = module.options;
  check_option(kAdditiveAttention, "options.d_q", module.q_linear->weight.size(1) == options.d_q());
  check_option(kAdditiveAttention, "options.d_k", module.k_linear->weight.size(1) == options.d_k());
  check_probability(kAdditiveAttention, "options.dropout", options.dropout());
}

}  // namespace

AdditiveAttentionImpl::AdditiveAttentionImpl(const AdditiveAttentionOptions& options_) : options(options_) {
  reset();
}

void AdditiveAttentionImpl::reset() {
  check_width(kAdditiveAttention, "d_q", options.d_q());
  check_width(kAdditiveAttention, "d_k", options.d_k());
  check_width(kAdditiveAttention, "d_hidden", options.d_hidden());
  check_probability(kAdditiveAttention, "dropout", options.dropout());
  const auto linear = [this](const char* name, int64_t in, bool bias) {
    return register_module(name,
                           torch::nn::Linear(torch::nn::LinearOptions(in, options.d_hidden()).bias(bias)));
  };
  q_linear = linear("q_linear", options.d_q(), options.bias());
  k_linear = linear("k_linear", options.d_k(), false);
  score_weight = register_parameter("score_weight", at::empty({options.d_hidden()}));
  // score_weight is initialised like the weight of a linear layer with one output.
  const double bound = 1 / std::sqrt(static_cast<double>(options.d_hidden()));
  torch::nn::init::uniform_(score_weight, -bound, bound);
}

void AdditiveAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::AdditiveAttention(d_q=" << options.d_q() << ", d_k=" << options.d_k()
         << ", d_hidden=" << options.d_hidden() << ")";
}

torch::Tensor AdditiveAttentionImpl::forward(const torch::Tensor& q, const torch::Tensor& k,
                                             const torch::Tensor& v, const Mask& mask) {
  check_sizes(*this);
  check_query_key(kAdditiveAttention, q, options.d_q(), k, options.d_k(), score_weight);
  check_value(kAdditiveAttention, v, q, k, score_weight);
  const double dropout_p = is_training() ? options.dropout() : 0;
  const auto query = q_linear(q);
  return checks::in_function(kAdditiveAttention, kMaskNames, [&] {
    return attend::additive_attention(query, k_linear(k), v.to(query.scalar_type()), score_weight,
                                      {.mask = mask, .dropout_p = dropout_p});
  });
}

torch::Tensor AdditiveAttentionImpl::weights(const torch::Tensor& q, const torch::Tensor& k,
                                             const Mask& mask) {
  check_sizes(*this);
  check_query_key(kAdditiveAttention, q, options.d_q(), k, options.d_k(), score_weight);
  return checks::in_function(kAdditiveAttention, kMaskNames, [&] {
    return attend::additive_attention_weights(q_linear(q), k_linear(k), score_weight, mask);
  });
}

}  // namespace attend::nn
