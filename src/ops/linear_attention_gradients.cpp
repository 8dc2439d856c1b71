// The derivatives of the private operators of linear attention, as in attention_gradients.cpp.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "core/gradients.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "functional/traced_kernels.h"
#include "ops/linear_attention_kernels.h"
#include "ops/saved_arguments.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Returns the output and the final state as a function of arguments.inputs(), in differentiable operations.
Operation differentiable_forward(const LinearArguments& arguments) {
  return [arguments](const variable_list& inputs) -> variable_list {
    const auto in = arguments.with_inputs(inputs);
    const auto result = differentiable_linear_attention(to_call(in), in.is_causal);
    const int64_t dim = in.query.dim();
    return {without_heads(result.output, dim), without_heads(result.final_state, dim)};
  };
}

/// Returns the gradients of arguments.inputs() as the backward operator does.
LinearGradients to_operator(const LinearArguments& in, const variable_list& gradients) {
  auto next = gradients.begin();
  const auto gradient_of = [&next](const at::Tensor& input) {
    return input.defined() ? *next++ : at::Tensor();
  };
  return LinearGradients{gradient_of(in.query),     gradient_of(in.key),  gradient_of(in.value),
                         gradient_of(in.log_decay), gradient_of(in.beta), gradient_of(in.initial_state)};
}

/// The reverse of `to_operator`.
variable_list from_operator(const LinearArguments& in, const LinearGradients& gradients) {
  const auto all = std::apply([](const auto&... each) { return variable_list{each...}; }, gradients);
  const auto tensors = in.tensors();
  variable_list given;
  for (size_t n = 0; n < all.size(); ++n) {
    if (tensors[n].defined()) given.push_back(all[n]);
  }
  return given;
}

/// Returns the results that are defined, the first two to four.
variable_list defined_results(const variable_list& results) {
  return {results.begin(), std::ranges::find_if_not(results, &at::Tensor::defined)};
}

/// The reverse of `defined_results`. The values for the backward operator are undefined where the results
/// come from the reference, since the gradients then do, too.
LinearForwardResult to_forward_result(variable_list results) {
  results.resize(4);
  return {results[0], results[1], results[2], results[3]};
}

/// The arguments of the backward operator.
struct LinearBackwardArguments {
  LinearArguments arguments;
  LinearForwardResult result;
  variable_list grads;  ///< of the output and the final state
};

/// The derivative of the backward operator. `tensors` are the inputs and the defined gradients.
struct LinearBackward : torch::autograd::Function<LinearBackward> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, at::TensorList /*tensors*/,
                               const LinearBackwardArguments& in,
                               const torch_private::HiddenTransforms& hidden) {
    hidden.show();
    const at::AutoGradMode graph(true);  // `apply` disabled gradients for the levels of torch.func below, too
    const at::AutoDispatchBelowADInplaceOrView below;
    save_arguments(context, in.arguments, in.grads);
    return from_operator(in.arguments,
                         call_linear_backward(in.arguments, in.result, in.grads[0], in.grads[1]));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_gradients) {
    const auto [arguments, grads] = saved_arguments<LinearArguments>(context);
    const auto found =
        double_backward_of(differentiable_forward(arguments), arguments.inputs(), grads, grad_gradients);
    variable_list all(found.begin(), found.end() - 2);
    if (grads[0].defined()) all.push_back(found[found.size() - 2]);
    if (grads[1].defined()) all.push_back(found.back());
    all.resize(all.size() + 2);  // the other parameters have no gradient
    return all;
  }
};

LinearGradients linear_backward(const LinearArguments& arguments, const at::Tensor& output,
                                const at::Tensor& final_state, const std::optional<at::Tensor>& normaliser,
                                const std::optional<at::Tensor>& unrounded,
                                const std::optional<at::Tensor>& grad_output,
                                const std::optional<at::Tensor>& grad_final_state) {
  const LinearBackwardArguments in{
      .arguments = arguments,
      .result = {output, final_state, normaliser.value_or(at::Tensor()), unrounded.value_or(at::Tensor())},
      .grads = {grad_output.value_or(at::Tensor()), grad_final_state.value_or(at::Tensor())}};
  auto tensors = arguments.inputs();
  for (const auto& grad : in.grads) {
    if (grad.defined()) tensors.push_back(grad);
  }
  if (any_has_tangent(tensors)) {
    return to_operator(arguments,
                       backward_of(differentiable_forward(arguments), arguments.inputs(), in.grads));
  }
  if (!any_needs_gradient(tensors)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return call_linear_backward(arguments, in.result, in.grads[0], in.grads[1]);
  }
  const torch_private::HiddenTransforms hidden;
  return to_operator(arguments, LinearBackward::apply(at::TensorList(tensors), in, hidden));
}

/// The derivative of the forward operator. `inputs` are arguments.inputs().
struct LinearForward : torch::autograd::Function<LinearForward> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, at::TensorList /*inputs*/,
                               const LinearArguments& arguments,
                               const torch_private::HiddenTransforms& hidden) {
    hidden.show();
    const at::AutoGradMode graph(true);  // `apply` disabled gradients for the levels of torch.func below, too
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [output, final_state, normaliser, unrounded] = call_linear_forward(arguments);
    save_arguments(context, arguments, {output, final_state, normaliser, unrounded});
    return defined_results({output, final_state, normaliser, unrounded});
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto [arguments, results] = saved_arguments<LinearArguments>(context);
    auto all = from_operator(
        arguments, call_linear_backward(arguments, {results[0], results[1], results[2], results[3]}, grads[0],
                                        grads[1]));
    all.resize(all.size() + 2);  // the other parameters have no gradient
    return all;
  }
};

LinearForwardResult linear_forward(const LinearArguments& arguments) {
  const auto inputs = arguments.inputs();
  if (any_has_tangent(inputs)) {
    return to_forward_result(differentiable_forward(arguments)(inputs));
  }
  if (!any_needs_gradient(inputs)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return call_linear_forward(arguments);
  }
  const torch_private::HiddenTransforms hidden;
  return to_forward_result(LinearForward::apply(at::TensorList(inputs), arguments, hidden));
}

TORCH_LIBRARY_IMPL(attend, Autograd, library) {
  library.impl("_linear_attention_forward", TORCH_FN(LinearOperator<linear_forward>::call));
  library.impl("_linear_attention_backward", TORCH_FN(LinearOperator<linear_backward>::call));
}

}  // namespace
}  // namespace attend::ops
