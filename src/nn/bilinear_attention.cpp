#include <attend/attention.h>
#include <attend/nn/bilinear_attention.h>

#include <cmath>
#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"

namespace attend::nn {
namespace {

constexpr auto kBilinearAttention = "nn::BilinearAttention";

/// Fails where the options no longer fit the parameters.
void check_sizes(const BilinearAttentionImpl& module) {
  const auto& options = module.options;
  check_option(kBilinearAttention, "options.d_q", module.q_linear->weight.size(1) == options.d_q());
  check_option(kBilinearAttention, "options.d_k", module.q_linear->weight.size(0) == options.d_k());
  check_probability(kBilinearAttention, "options.dropout", options.dropout());
}

}  // namespace

BilinearAttentionImpl::BilinearAttentionImpl(const BilinearAttentionOptions& options_) : options(options_) {
  reset();
}

void BilinearAttentionImpl::reset() {
  check_width(kBilinearAttention, "d_q", options.d_q());
  check_width(kBilinearAttention, "d_k", options.d_k());
  check_probability(kBilinearAttention, "dropout", options.dropout());
  if (!std::isfinite(options.scale())) {
    checks::fail(kBilinearAttention, "scale", "a finite value", c10::str(options.scale()));
  }
  q_linear = register_module(
      "q_linear", torch::nn::Linear(torch::nn::LinearOptions(options.d_q(), options.d_k()).bias(false)));
}

void BilinearAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::BilinearAttention(d_q=" << options.d_q() << ", d_k=" << options.d_k()
         << ", scale=" << options.scale() << ")";
}

torch::Tensor BilinearAttentionImpl::forward(const torch::Tensor& q, const torch::Tensor& k,
                                             const torch::Tensor& v, const Mask& mask) {
  check_sizes(*this);
  check_query_key(kBilinearAttention, q, options.d_q(), k, options.d_k(), q_linear->weight);
  check_value(kBilinearAttention, v, q, k, q_linear->weight);
  const auto query = q_linear(q);
  const double dropout_p = is_training() ? options.dropout() : 0;
  return checks::in_function(kBilinearAttention, kMaskNames, [&] {
    return attention(query, k.to(query.scalar_type()), v.to(query.scalar_type()),
                     {.mask = mask, .scale = options.scale(), .dropout_p = dropout_p});
  });
}

torch::Tensor BilinearAttentionImpl::weights(const torch::Tensor& q, const torch::Tensor& k,
                                             const Mask& mask) {
  check_sizes(*this);
  check_query_key(kBilinearAttention, q, options.d_q(), k, options.d_k(), q_linear->weight);
  const auto query = q_linear(q);
  return checks::in_function(kBilinearAttention, kMaskNames, [&] {
    return attention_weights(query, k.to(query.scalar_type()), {.mask = mask, .scale = options.scale()});
  });
}

}  // namespace attend::nn
