#include <attend/attention.h>
#include <attend/nn/attention.h>

#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"

namespace attend::nn {
namespace {

constexpr auto kAttention = "nn::Attention";

/// Fails where the options no longer fit the parameters.
void check_sizes(const AttentionImpl& module) {
  const auto& options = module.options;
  const auto width = [](const torch::nn::Linear& linear) { return linear->weight.size(1); };
  check_option(kAttention, "options.d_q", width(module.q_linear) == options.d_q());
  check_option(kAttention, "options.d_k", width(module.k_linear) == options.d_k());
  check_option(kAttention, "options.d_v", width(module.v_linear) == options.d_v());
}

}  // namespace

AttentionImpl::AttentionImpl(const AttentionOptions& options_) : options(options_) { reset(); }

void AttentionImpl::reset() {
  check_width(kAttention, "d_q", options.d_q());
  check_width(kAttention, "d_k", options.d_k());
  check_width(kAttention, "d_v", options.d_v());
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return register_module(name, torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(options.bias())));
  };
  q_linear = linear("q_linear", options.d_q(), options.d_k());
  k_linear = linear("k_linear", options.d_k(), options.d_k());
  v_linear = linear("v_linear", options.d_v(), options.d_v());
}

void AttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::Attention(d_q=" << options.d_q() << ", d_k=" << options.d_k()
         << ", d_v=" << options.d_v() << ", bias=" << (options.bias() ? "true" : "false") << ")";
}

torch::Tensor AttentionImpl::forward(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                                     const Mask& mask) {
  check_sizes(*this);
  check_query_key(kAttention, q, options.d_q(), k, options.d_k(), q_linear->weight);
  check_input(kAttention, "v", v, options.d_v(), {"q", q}, v_linear->weight);
  if (v.size(-2) != k.size(-2)) {
    checks::fail(kAttention, "v", c10::str("the length of k, ", k.size(-2)), checks::describe(v));
  }
  return checks::in_function(kAttention, kMaskNames, [&] {
    return attention(q_linear(q), k_linear(k), v_linear(v), {.mask = mask});
  });
}

torch::Tensor AttentionImpl::weights(const torch::Tensor& q, const torch::Tensor& k, const Mask& mask) {
  check_sizes(*this);
  check_query_key(kAttention, q, options.d_q(), k, options.d_k(), q_linear->weight);
  return checks::in_function(kAttention, kMaskNames,
                             [&] { return attention_weights(q_linear(q), k_linear(k), {.mask = mask}); });
}

}  // namespace attend::nn
