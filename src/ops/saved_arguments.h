#pragma once

// The arguments of a private operator, as its autograd function saves them for the backward.

#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace attend::ops {

/// Saves the arguments of an operator, AttentionArguments or LinearArguments, and more tensors.
template <class Arguments>
void save_arguments(torch::autograd::AutogradContext* context, const Arguments& arguments,
                    const torch::autograd::variable_list& more) {
  auto saved = arguments.tensors();
  saved.insert(saved.end(), more.begin(), more.end());
  context->save_for_backward(saved);
  context->set_materialize_grads(false);
  context->saved_data["constants"] = arguments.constants();
}

/// Returns the arguments that `save_arguments` saved, and the other tensors.
template <class Arguments>
std::pair<Arguments, torch::autograd::variable_list> saved_arguments(
    torch::autograd::AutogradContext* context) {
  const auto saved = context->get_saved_variables();
  auto arguments = Arguments::from(context->saved_data["constants"], saved);
  const auto count = static_cast<std::ptrdiff_t>(arguments.tensor_members().size());
  return {std::move(arguments), {saved.begin() + count, saved.end()}};
}

}  // namespace attend::ops
