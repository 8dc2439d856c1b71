// The derivatives of the private operators of attention. The gradients of the forward operator are the
// backward operator; its own gradients, and everything in forward mode, come from the reference.
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "core/gradients.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "functional/traced_kernels.h"
#include "ops/attention_kernels.h"
#include "ops/saved_arguments.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Returns the output and the logsumexp as a function of arguments.inputs(), in differentiable operations.
Operation differentiable_forward(const AttentionArguments& arguments, const at::Tensor& dropout_seed) {
  return [arguments, dropout_seed](const variable_list& inputs) -> variable_list {
    const auto call = to_call(arguments.with_inputs(inputs), dropout_seed);
    const auto result = differentiable_attention(call);
    return {without_heads(result.output, call.query_dim), without_heads(result.logsumexp, call.query_dim)};
  };
}

/// Returns the gradients of arguments.inputs() as the backward operator does.
AttentionGradients to_operator(const AttentionArguments& in, const variable_list& gradients) {
  const bool has_slopes = in.alibi_slopes.defined();
  return {gradients[0], gradients[1], gradients[2], has_slopes ? gradients[3] : at::Tensor(),
          in.has_bias() ? gradients[has_slopes ? 4 : 3] : at::Tensor()};
}

/// The reverse of `to_operator`.
variable_list from_operator(const AttentionArguments& in, const AttentionGradients& gradients) {
  const auto [query, key, value, slopes, bias] = gradients;
  variable_list all = {query, key, value};
  if (in.alibi_slopes.defined()) all.push_back(slopes);
  if (in.has_bias()) all.push_back(bias);
  return all;
}

/// The arguments of the backward operator.
struct BackwardArguments {
  AttentionArguments arguments;
  at::Tensor dropout_seed;
  AttentionForwardResult result;
  variable_list grads;  ///< of the output and the logsumexp
};

/// The derivative of the backward operator. `tensors`: the inputs and the defined gradients, which are
/// parameters of their own since autograd records only parameters that are tensors.
struct AttentionBackward : torch::autograd::Function<AttentionBackward> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, at::TensorList /*tensors*/,
                               const BackwardArguments& in, const torch_private::HiddenTransforms& hidden) {
    hidden.show();
    const at::AutoGradMode graph(true);  // `apply` disabled gradients for the levels of torch.func below, too
    const at::AutoDispatchBelowADInplaceOrView below;
    save_arguments(context, in.arguments, {in.dropout_seed, in.grads[0], in.grads[1]});
    return from_operator(in.arguments, call_attention_backward(in.arguments, in.dropout_seed, in.result,
                                                               in.grads[0], in.grads[1]));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_gradients) {
    const auto [arguments, more] = saved_arguments<AttentionArguments>(context);
    const auto found = double_backward_of(differentiable_forward(arguments, more[0]), arguments.inputs(),
                                          {more[1], more[2]}, grad_gradients);
    variable_list all(found.begin(), found.end() - 2);
    if (more[1].defined()) all.push_back(found[found.size() - 2]);
    if (more[2].defined()) all.push_back(found.back());
    all.resize(all.size() + 2);  // the other parameters have no gradient
    return all;
  }
};

AttentionGradients attention_backward(const AttentionArguments& arguments,
                                      const std::optional<at::Tensor>& dropout_seed, const at::Tensor& output,
                                      const at::Tensor& logsumexp, const at::Tensor& logsumexp_low,
                                      const std::optional<at::Tensor>& grad_output,
                                      const std::optional<at::Tensor>& grad_logsumexp) {
  const BackwardArguments in{
      .arguments = arguments,
      .dropout_seed = dropout_seed.value_or(at::Tensor()),
      .result = {output, logsumexp, logsumexp_low},
      .grads = {grad_output.value_or(at::Tensor()), grad_logsumexp.value_or(at::Tensor())}};
  auto tensors = arguments.inputs();
  for (const auto& grad : in.grads) {
    if (grad.defined()) tensors.push_back(grad);
  }
  if (any_has_tangent(tensors)) {
    const auto forward = differentiable_forward(arguments, in.dropout_seed);
    return to_operator(arguments, backward_of(forward, arguments.inputs(), in.grads));
  }
  if (!any_needs_gradient(tensors)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return call_attention_backward(arguments, in.dropout_seed, in.result, in.grads[0], in.grads[1]);
  }
  const torch_private::HiddenTransforms hidden;
  return to_operator(arguments, AttentionBackward::apply(at::TensorList(tensors), in, hidden));
}

/// The derivative of the forward operator. `inputs` are arguments.inputs().
struct AttentionForward : torch::autograd::Function<AttentionForward> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, at::TensorList /*inputs*/,
                               const AttentionArguments& arguments,
                               const std::optional<at::Tensor>& dropout_seed,
                               const torch_private::HiddenTransforms& hidden) {
    hidden.show();
    const at::AutoGradMode graph(true);  // `apply` disabled gradients for the levels of torch.func below, too
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto seed = dropout_seed.value_or(at::Tensor());
    const auto [output, logsumexp, logsumexp_low] = call_attention_forward(arguments, seed);
    save_arguments(context, arguments, {seed, output, logsumexp, logsumexp_low});
    return {output, logsumexp, logsumexp_low};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto [arguments, more] = saved_arguments<AttentionArguments>(context);
    auto all = from_operator(
        arguments,
        call_attention_backward(arguments, more[0], {more[1], more[2], more[3]}, grads[0], grads[1]));
    all.resize(all.size() + 3);  // the other parameters have no gradient
    return all;
  }
};

AttentionForwardResult attention_forward(const AttentionArguments& arguments,
                                         const std::optional<at::Tensor>& dropout_seed) {
  const auto inputs = arguments.inputs();
  if (any_has_tangent(inputs)) {
    const auto results = differentiable_forward(arguments, dropout_seed.value_or(at::Tensor()))(inputs);
    return {results[0], results[1], at::zeros_like(results[1])};
  }
  if (!any_needs_gradient(inputs)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return call_attention_forward(arguments, dropout_seed.value_or(at::Tensor()));
  }
  const torch_private::HiddenTransforms hidden;
  const auto results = AttentionForward::apply(at::TensorList(inputs), arguments, dropout_seed, hidden);
  return {results[0], results[1], results[2]};
}

TORCH_LIBRARY_IMPL(attend, Autograd, library) {
  library.impl("_attention_forward", TORCH_FN(AttentionOperator<attention_forward>::call));
  library.impl("_attention_backward", TORCH_FN(AttentionOperator<attention_backward>::call));
}

}  // namespace
}  // namespace attend::ops
