#include "ops/linear_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <attend/linear_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include "autograd/gradients.h"
#include "core/checks.h"
#include "core/inputs.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kFunction = "linear_attention";

/// What the operators are called with, in the order of their schemas; a tensor is undefined where None was
/// given.
struct LinearArguments {
  static constexpr size_t kCount = 10;

  at::Tensor query, key, value;
  std::string feature_map;
  bool normalize, is_causal;
  at::Tensor log_decay, beta, initial_state;
  std::optional<double> scale;

  explicit LinearArguments(const std::vector<c10::IValue>& values)
      : query(values.at(0).toTensor()),
        key(values.at(1).toTensor()),
        value(values.at(2).toTensor()),
        feature_map(values.at(3).toStringRef()),
        normalize(values.at(4).toBool()),
        is_causal(values.at(5).toBool()),
        log_decay(tensor_or_undefined(values.at(6))),
        beta(tensor_or_undefined(values.at(7))),
        initial_state(tensor_or_undefined(values.at(8))),
        scale(values.at(9).toOptional<double>()) {}

  Stack stack() const {
    return {query,
            key,
            value,
            feature_map,
            normalize,
            is_causal,
            tensor_or_none(log_decay),
            tensor_or_none(beta),
            tensor_or_none(initial_state),
            scale};
  }

  variable_list tensors() const { return {query, key, value, log_decay, beta, initial_state}; }
  variable_list given_tensors() const {
    variable_list given;
    for (const auto& tensor : tensors()) {
      if (tensor.defined()) given.push_back(tensor);
    }
    return given;
  }
  void set_tensors(const variable_list& tensors) {
    query = tensors.at(0);
    key = tensors.at(1);
    value = tensors.at(2);
    log_decay = tensors.at(3);
    beta = tensors.at(4);
    initial_state = tensors.at(5);
  }
};

FeatureMap feature_map_of(const std::string& name) {
  if (name == "elu_plus_one") return FeatureMap::elu_plus_one;
  if (name == "relu") return FeatureMap::relu;
  if (name == "identity") return FeatureMap::identity;
  checks::fail(kFunction, "feature_map", "elu_plus_one, relu or identity", name);
}

variable_list compute(const LinearArguments& in) {
  const auto result = attend::linear_attention(in.query, in.key, in.value,
                                               {.feature_map = feature_map_of(in.feature_map),
                                                .normalize = in.normalize,
                                                .is_causal = in.is_causal,
                                                .log_decay = in.log_decay,
                                                .beta = in.beta,
                                                .scale = in.scale,
                                                .initial_state = in.initial_state});
  return {result.output, result.final_state};
}

/// The gradients of the tensors that require them, undefined for the others.
variable_list gradients_of(LinearArguments in, const variable_list& grads, bool create_graph) {
  const at::AutoGradMode graph(true);
  auto begins = in.tensors();
  for (auto& tensor : begins) tensor = autograd::begin_of_graph(tensor, create_graph);
  in.set_tensors(begins);
  return autograd::gradients_of(in.tensors(), compute(in), grads, create_graph,
                                /*retain_graph=*/create_graph);
}

variable_list tensors_of(const Stack& stack) {
  variable_list tensors;
  for (const auto& value : stack) tensors.push_back(tensor_or_undefined(value));
  return tensors;
}

variable_list call_forward(const LinearArguments& arguments) {
  return tensors_of(call("attend::_linear_attention_forward", arguments.stack()));
}

variable_list call_backward(const LinearArguments& arguments, const variable_list& grads) {
  auto stack = arguments.stack();
  for (const auto& grad : grads) stack.push_back(tensor_or_none(grad));
  return tensors_of(call("attend::_linear_attention_backward", std::move(stack)));
}

/// The arguments as a value of the autograd graph; without the tensors, which the graph saves itself.
struct LinearArgumentsHolder : torch::CustomClassHolder {
  explicit LinearArgumentsHolder(LinearArguments held) : arguments(std::move(held)) {
    arguments.set_tensors(variable_list(arguments.tensors().size()));
  }
  LinearArguments arguments;
};

/// The private operators with their gradients.
struct TracedLinearAttention : torch::autograd::Function<TracedLinearAttention> {
  /// The tensors are named so that their gradients are asked for.
  static variable_list forward(AutogradContext* context, at::TensorList /*given_tensors*/,
                               const LinearArguments& arguments) {
    context->save_for_backward(arguments.tensors());
    context->set_materialize_grads(false);
    context->saved_data["arguments"] =
        c10::IValue::make_capsule(c10::make_intrusive<LinearArgumentsHolder>(arguments));
    return call_forward(arguments);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto arguments = c10::static_intrusive_pointer_cast<LinearArgumentsHolder>(
                         context->saved_data["arguments"].toCapsule())
                         ->arguments;
    arguments.set_tensors(context->get_saved_variables());
    const auto all = at::GradMode::is_enabled() ? gradients_of(arguments, grads, /*create_graph=*/true)
                                                : call_backward(arguments, grads);
    variable_list gradients;
    const auto tensors = arguments.tensors();
    for (size_t n = 0; n < tensors.size(); ++n) {
      if (tensors[n].defined()) gradients.push_back(all[n]);
    }
    gradients.emplace_back();  // of the arguments themselves
    return gradients;
  }
};

}  // namespace

void linear_attention(const c10::OperatorHandle&, Stack* stack) {
  const LinearArguments in(torch::jit::pop(*stack, LinearArguments::kCount));
  const auto tensors = in.given_tensors();
  const auto results = !is_traced(tensors) ? compute(in)
                       : is_differentiated(tensors)
                           ? TracedLinearAttention::apply(at::TensorList(tensors), in)
                           : call_forward(in);
  for (const auto& result : results) stack->emplace_back(result);
}

void linear_attention_forward_cpu(const c10::OperatorHandle&, Stack* stack) {
  const LinearArguments in(torch::jit::pop(*stack, LinearArguments::kCount));
  for (const auto& result : compute(in)) stack->emplace_back(result.contiguous());
}

void linear_attention_forward_meta(const c10::OperatorHandle&, Stack* stack) {
  const LinearArguments in(torch::jit::pop(*stack, LinearArguments::kCount));
  check_inputs(kFunction, in.query, in.key, in.value);
  feature_map_of(in.feature_map);
  auto sizes = in.query.sym_sizes().vec();
  sizes.back() = in.value.sym_size(-1);
  stack->emplace_back(at::empty_symint(sizes, in.query.options()));
  sizes.back() = sizes.back() + (in.normalize ? 1 : 0);
  sizes[sizes.size() - 2] = in.query.sym_size(-1);
  stack->emplace_back(at::empty_symint(sizes, in.query.options().dtype(compute_type(in.query))));
}

/// Computes the forward pass again, with its graph.
void linear_attention_backward_cpu(const c10::OperatorHandle&, Stack* stack) {
  const auto values = torch::jit::pop(*stack, LinearArguments::kCount + 2);
  LinearArguments in(values);
  auto leaves = in.tensors();
  for (auto& tensor : leaves) {
    if (tensor.defined()) tensor = tensor.detach().requires_grad_();
  }
  in.set_tensors(leaves);
  const auto gradients = gradients_of(in, {tensor_or_undefined(values[10]), tensor_or_undefined(values[11])},
                                      /*create_graph=*/false);
  for (size_t n = 0; n < leaves.size(); ++n) {
    // An input that the results don't depend on, as the decay where there are no keys, has no gradient.
    const auto gradient =
        leaves[n].defined() && !gradients[n].defined() ? at::zeros_like(leaves[n]) : gradients[n];
    stack->push_back(gradient.defined() ? c10::IValue(gradient.contiguous()) : c10::IValue());
  }
}

void linear_attention_backward_meta(const c10::OperatorHandle&, Stack* stack) {
  const LinearArguments in(torch::jit::pop(*stack, LinearArguments::kCount + 2));
  for (const auto& tensor : in.tensors()) {
    stack->push_back(tensor.defined() ? c10::IValue(at::empty_symint(tensor.sym_sizes(), tensor.options()))
                                      : c10::IValue());
  }
}

}  // namespace attend::ops
