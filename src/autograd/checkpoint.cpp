#include "autograd/checkpoint.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <mutex>

#include "core/gradients.h"
#include "core/held.h"
#include "core/torch_private.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Run = std::function<at::Tensor(const variable_list& inputs)>;

/// A snapshot of the default generator and the autocast settings of one device.
class RngAndAutocastState {
 public:
  explicit RngAndAutocastState(at::Device device)
      : device_(device), autocast_(torch_private::autocast_of(device.type())) {
    auto generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator_state_ = generator.get_state();
  }

  void restore() const {
    torch_private::set_autocast(device_.type(), autocast_);
    auto generator = at::globalContext().defaultGenerator(device_);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(generator_state_);
  }

  at::Device device() const { return device_; }

 private:
  at::Device device_;
  torch_private::Autocast autocast_;
  at::Tensor generator_state_;
};

/// Calls action() with the state of the snapshot, and then restores the current state, also if action()
/// throws.
template <typename Action>
auto with_state(const RngAndAutocastState& state, const Action& action) {
  const RngAndAutocastState current(state.device());
  const auto call = [&] {
    state.restore();
    return action();
  };
  try {
    auto result = call();
    current.restore();
    return result;
  } catch (...) {
    current.restore();
    throw;
  }
}

/// The data that the autograd node saves besides the tensors.
struct CheckpointedRun {
  Run run;
  size_t num_inputs;
  RngAndAutocastState state;
};

variable_list first_of(const variable_list& tensors, size_t count) {
  return {tensors.begin(), tensors.begin() + static_cast<std::ptrdiff_t>(count)};
}

struct Checkpointed : torch::autograd::Function<Checkpointed> {
  /// `tensors` holds the inputs, followed by the captured tensors.
  static at::Tensor forward(AutogradContext* context, at::TensorList tensors, const Run& run,
                            size_t num_inputs) {
    context->save_for_backward(tensors.vec());
    context->saved_data["run"] = capsule_of(CheckpointedRun{
        .run = run, .num_inputs = num_inputs, .state = RngAndAutocastState(tensors[0].device())});
    return run(first_of(tensors.vec(), num_inputs));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const bool create_graph = at::GradMode::is_enabled();
    auto tensors = context->get_saved_variables();
    const auto saved = held_in<CheckpointedRun>(context->saved_data["run"]);
    const at::AutoGradMode graph(true);
    for (size_t n = 0; n < saved.num_inputs; ++n) tensors[n] = as_grad_leaf(tensors[n], create_graph);
    const auto output =
        with_state(saved.state, [&] { return saved.run(first_of(tensors, saved.num_inputs)); });
    auto all = gradients_of(tensors, {output}, grads, create_graph, /*retain_graph=*/create_graph);
    all.resize(all.size() + 2);  // `run` and `num_inputs` have no gradient
    return all;
  }
};

}  // namespace

at::Tensor checkpointed(const Run& run, const variable_list& inputs, const variable_list& captured) {
  variable_list tensors;
  std::vector<bool> is_defined;
  for (const auto& input : inputs) {
    is_defined.push_back(input.defined());
    if (input.defined()) tensors.push_back(input);
  }
  const auto run_with_undefined = [=](const variable_list& defined) {
    variable_list all;
    auto next = defined.begin();
    for (const bool has : is_defined) all.push_back(has ? *next++ : at::Tensor());
    return run(all);
  };
  const size_t num_inputs = tensors.size();
  tensors.insert(tensors.end(), captured.begin(), captured.end());
  const bool is_plain = std::ranges::none_of(tensors, [](const at::Tensor& tensor) {
    return has_tangent(tensor) || torch_private::is_subclass_like(tensor);
  });
  return any_needs_gradient(tensors) && is_plain
             ? Checkpointed::apply(at::TensorList(tensors), run_with_undefined, num_inputs)
             : run(inputs);
}

}  // namespace attend::autograd
