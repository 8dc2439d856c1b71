#include <ATen/autocast_mode.h>
#include <attend/attention.h>
#include <attend/nn/attention.h>

#include <ostream>

#include "../checks.h"

namespace attend::nn {
namespace {

void check_width(const char* argument, int64_t width) {
  if (width < 1) checks::fail("nn::Attention", argument, "a width of at least 1", c10::str(width));
}

/// Fails unless the tensor is [B, L, width] or [L, width], of as many dimensions as `q`, and of the
/// parameters' dtype (which autocast sees to where it is on) and device.
void check_input(const char* argument, const torch::Tensor& tensor, int64_t width, const torch::Tensor& q,
                 const torch::Tensor& parameter) {
  checks::is_strided("nn::Attention", argument, tensor);
  const bool has_rank = (tensor.dim() == 2 || tensor.dim() == 3) && tensor.dim() == q.dim();
  if (!has_rank || tensor.size(-1) != width) {
    checks::fail("nn::Attention", argument,
                 q.dim() == 2   ? c10::str("[L, ", width, "]")
                 : q.dim() == 3 ? c10::str("[B, L, ", width, "]")
                                : c10::str("[B, L, ", width, "] or [L, ", width, "]"),
                 checks::describe(tensor));
  }
  if (tensor.dim() == 3 && tensor.size(0) != q.size(0)) {
    checks::fail("nn::Attention", argument, c10::str("the batch size of q, ", q.size(0)),
                 checks::describe(tensor));
  }
  if (tensor.device() != parameter.device()) {
    checks::fail("nn::Attention", argument,
                 c10::str("a tensor on the parameters' device ", parameter.device()),
                 c10::str(tensor.device()));
  }
  const bool is_cast = at::autocast::is_autocast_enabled(tensor.device().type());
  if (tensor.scalar_type() != parameter.scalar_type() && !is_cast) {
    checks::fail("nn::Attention", argument,
                 c10::str("the parameters' dtype ", checks::dtype_name(parameter.scalar_type())),
                 checks::describe(tensor));
  }
}

}  // namespace

AttentionImpl::AttentionImpl(const AttentionOptions& options_) : options(options_) { reset(); }

void AttentionImpl::reset() {
  check_width("d_q", options.d_q());
  check_width("d_k", options.d_k());
  check_width("d_v", options.d_v());
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
  check_input("q", q, options.d_q(), q, q_linear->weight);
  check_input("k", k, options.d_k(), q, k_linear->weight);
  check_input("v", v, options.d_v(), q, v_linear->weight);
  if (v.size(-2) != k.size(-2)) {
    checks::fail("nn::Attention", "v", c10::str("the length of k, ", k.size(-2)), checks::describe(v));
  }
  return attention(q_linear(q), k_linear(k), v_linear(v), {.mask = mask});
}

torch::Tensor AttentionImpl::weights(const torch::Tensor& q, const torch::Tensor& k, const Mask& mask) {
  check_input("q", q, options.d_q(), q, q_linear->weight);
  check_input("k", k, options.d_k(), q, k_linear->weight);
  return attention_weights(q_linear(q), k_linear(k), {.mask = mask});
}

}  // namespace attend::nn
