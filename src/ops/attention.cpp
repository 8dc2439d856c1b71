#include "ops/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include "autograd/saved_call.h"
#include "core/inputs.h"
#include "ops/attention_arguments.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The arguments as a value of the autograd graph; without the tensors, which the graph saves itself.
struct ArgumentsHolder : torch::CustomClassHolder {
  explicit ArgumentsHolder(AttentionArguments held) : arguments(std::move(held)) {
    arguments.set_tensors(variable_list(arguments.tensors().size()));
  }
  AttentionArguments arguments;
};

/// Output, logsumexp and what its rounding left out.
variable_list call_forward(const AttentionArguments& arguments) {
  variable_list results;
  for (const auto& result : call("attend::_attention_forward", arguments.stack())) {
    results.push_back(result.toTensor());
  }
  return results;
}

/// The gradients of query, key, value and the score modification's tensors.
variable_list call_backward(const AttentionArguments& arguments, const variable_list& results,
                            const variable_list& grads) {
  auto stack = arguments.stack();
  for (const auto& result : results) stack.emplace_back(result);
  for (const auto& grad : grads) stack.push_back(tensor_or_none(grad));
  variable_list gradients;
  for (const auto& gradient : call("attend::_attention_backward", std::move(stack))) {
    const auto tensor = tensor_or_undefined(gradient);
    if (gradients.size() < 3 || tensor.defined()) gradients.push_back(tensor);
  }
  return gradients;
}

/// The gradients by the operations of the reference, to be differentiated again.
variable_list differentiable_backward(const AttentionArguments& arguments, const variable_list& grads) {
  const auto attention_call = call_of(arguments);
  const auto shape = attention_call.shape();
  const variable_list with_all_heads = {
      grads[0].defined() ? with_heads(grads[0]) : grads[0],
      grads[1].defined() ? grads[1].reshape({shape.batch, shape.heads, shape.queries}) : grads[1]};
  auto gradients = autograd::differentiable_backward(attention_call, with_all_heads);
  for (size_t n = 0; n < 3; ++n) {
    if (gradients[n].defined()) gradients[n] = without_heads(gradients[n], arguments.query.dim());
  }
  return gradients;
}

/// The private operators with their gradients.
struct TracedAttention : torch::autograd::Function<TracedAttention> {
  /// The tensors are named so that their gradients are asked for.
  static variable_list forward(AutogradContext* context, const at::Tensor& /*query*/,
                               const at::Tensor& /*key*/, const at::Tensor& /*value*/,
                               at::TensorList /*score_mod*/, const AttentionArguments& arguments) {
    const auto results = call_forward(arguments);
    auto saved = arguments.tensors();
    saved.insert(saved.end(), results.begin(), results.end());
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["arguments"] =
        c10::IValue::make_capsule(c10::make_intrusive<ArgumentsHolder>(arguments));
    return {results[0], results[1]};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto tensors = context->get_saved_variables();
    const auto results = variable_list(tensors.end() - 3, tensors.end());
    tensors.resize(tensors.size() - 3);
    auto arguments =
        c10::static_intrusive_pointer_cast<ArgumentsHolder>(context->saved_data["arguments"].toCapsule())
            ->arguments;
    arguments.set_tensors(tensors);
    auto gradients = at::GradMode::is_enabled() ? differentiable_backward(arguments, grads)
                                                : call_backward(arguments, results, grads);
    gradients.emplace_back();  // of the arguments themselves
    return gradients;
  }
};

AttentionWithLse traced_attention(AttentionArguments arguments) {
  if (arguments.dropout_p > 0) arguments.dropout_seed = draw_seed(arguments.query.device());
  const auto score_mod = arguments.score_mod_tensors();
  const auto results = is_differentiated(arguments.tensors())
                           ? TracedAttention::apply(arguments.query, arguments.key, arguments.value,
                                                    at::TensorList(score_mod), arguments)
                           : call_forward(arguments);
  return {results[0], results[1]};
}

}  // namespace

void attention(const c10::OperatorHandle&, Stack* stack) {
  const AttentionArguments in(torch::jit::pop(*stack, AttentionArguments::kPublic));
  stack->emplace_back(is_traced(in.tensors())
                          ? traced_attention(in).output
                          : attend::attention(in.query, in.key, in.value, params_of("attention", in)));
}

void attention_with_lse(const c10::OperatorHandle&, Stack* stack) {
  constexpr auto kFunction = "attention_with_lse";
  const AttentionArguments in(torch::jit::pop(*stack, AttentionArguments::kPublic));
  const auto result = is_traced(in.tensors())
                          ? traced_attention(in)
                          : attend::attention_with_lse(in.query, in.key, in.value, params_of(kFunction, in));
  stack->emplace_back(result.output);
  stack->emplace_back(result.logsumexp);
}

}  // namespace attend::ops
