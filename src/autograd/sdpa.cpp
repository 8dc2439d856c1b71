#include "autograd/sdpa.h"

#include "autograd/saved_call.h"
#include "sdpa/attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SdpaAttention : torch::autograd::Function<SdpaAttention> {
  /// `inputs` are call.inputs(), passed separately because autograd records only tensors that are arguments.
  static at::Tensor forward(AutogradContext* context, at::TensorList /*inputs*/, const AttentionCall& call) {
    save_call(context, call, {});
    const at::AutoGradMode graph(true);
    const auto leaves = with_grad_leaves(call, /*create_graph=*/false);
    const auto output = sdpa::attention(leaves);
    context->saved_data["inputs"] = leaves.inputs();
    context->saved_data["output"] = output;  // keeps ATen's graph between leaves and output alive
    return output.detach();
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call = saved_call(context).call;
    auto all = needs_differentiable_backward(call, grads)
                   ? differentiable_backward(call, grads)
                   : gradients_of_inputs(context->saved_data["inputs"].toTensorVector(),
                                         {context->saved_data["output"].toTensor(), {}}, grads,
                                         /*create_graph=*/false);
    all.emplace_back();  // `call` itself has no gradient
    return all;
  }
};

}  // namespace

at::Tensor sdpa(const AttentionCall& call) {
  if (!is_differentiated(call)) return sdpa::attention(call);
  const auto inputs = call.inputs();
  return SdpaAttention::apply(at::TensorList(inputs), call);
}

}  // namespace attend::autograd
