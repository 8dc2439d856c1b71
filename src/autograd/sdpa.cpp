#include "autograd/sdpa.h"

#include "autograd/saved_call.h"
#include "sdpa/attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SdpaAttention : torch::autograd::Function<SdpaAttention> {
  /// The tensors of the call are named so that their gradients are asked for.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*query*/, const at::Tensor& /*key*/,
                            const at::Tensor& /*value*/, at::TensorList /*score_mod*/,
                            const AttentionCall& call) {
    save_call(context, call, {});
    const at::AutoGradMode graph(true);
    const auto begin = at_begin_of_graph(call, /*create_graph=*/false);
    const auto output = sdpa::attention(begin);
    context->saved_data["inputs"] = inputs_of(begin);
    context->saved_data["output"] = output;  // with ATen's graph, up to those inputs
    return output.detach();
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call = saved_call(context).call;
    auto all = at::GradMode::is_enabled()
                   ? differentiable_backward(call, grads)
                   : gradients_of(context->saved_data["inputs"].toTensorVector(),
                                  {context->saved_data["output"].toTensor(), {}}, grads,
                                  /*create_graph=*/false);
    all.emplace_back();  // of the call itself
    return all;
  }
};

}  // namespace

at::Tensor sdpa(const AttentionCall& call) {
  if (!is_differentiated(call)) return sdpa::attention(call);
  const auto tensors = score_mod_tensors(call);
  return SdpaAttention::apply(call.query, call.key, call.value, at::TensorList(tensors), call);
}

}  // namespace attend::autograd
