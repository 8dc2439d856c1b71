#include "autograd/checkpoint.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <mutex>

#include "autograd/gradients.h"
#include "core/tangents.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Run = std::function<at::Tensor(const variable_list& inputs)>;

/// The random numbers and the autocast of a moment, on one device.
class Surroundings {
 public:
  explicit Surroundings(at::Device device)
      : device_(device),
        is_cast_(at::autocast::is_autocast_enabled(device.type())),
        cast_dtype_(at::autocast::get_autocast_dtype(device.type())) {
    auto generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    random_state_ = generator.get_state();
  }

  void restore() const {
    at::autocast::set_autocast_enabled(device_.type(), is_cast_);
    at::autocast::set_autocast_dtype(device_.type(), cast_dtype_);
    auto generator = at::globalContext().defaultGenerator(device_);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(random_state_);
  }

  at::Device device() const { return device_; }

 private:
  at::Device device_;
  bool is_cast_;
  at::ScalarType cast_dtype_;
  at::Tensor random_state_;
};

/// While it lives, the surroundings of before.
class BackIn {
 public:
  explicit BackIn(const Surroundings& before) : now_(before.device()) { before.restore(); }
  BackIn(const BackIn&) = delete;
  BackIn& operator=(const BackIn&) = delete;
  ~BackIn() { now_.restore(); }

 private:
  Surroundings now_;
};

/// What the graph keeps beside the tensors.
struct RunHolder : torch::CustomClassHolder {
  RunHolder(Run held, size_t count, at::Device device)
      : run(std::move(held)), inputs(count), surroundings(device) {}
  Run run;
  size_t inputs;
  Surroundings surroundings;
};

variable_list first_of(const variable_list& tensors, size_t count) {
  return {tensors.begin(), tensors.begin() + static_cast<std::ptrdiff_t>(count)};
}

struct Recompute : torch::autograd::Function<Recompute> {
  /// `tensors`: the inputs, and what is captured.
  static at::Tensor forward(AutogradContext* context, at::TensorList tensors, const Run& run, size_t inputs) {
    context->save_for_backward(tensors.vec());
    const auto holder = c10::make_intrusive<RunHolder>(run, inputs, tensors[0].device());
    context->saved_data["run"] = c10::IValue::make_capsule(holder);
    return run(first_of(tensors.vec(), inputs));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const bool create_graph = at::GradMode::is_enabled();
    auto tensors = context->get_saved_variables();
    const auto holder = c10::static_intrusive_pointer_cast<RunHolder>(context->saved_data["run"].toCapsule());
    const at::AutoGradMode graph(true);
    for (size_t n = 0; n < holder->inputs; ++n) tensors[n] = begin_of_graph(tensors[n], create_graph);
    at::Tensor output;
    {
      const BackIn surroundings(holder->surroundings);
      output = holder->run(first_of(tensors, holder->inputs));
    }
    auto all = gradients_of(tensors, {output}, grads, create_graph, /*retain_graph=*/create_graph);
    all.resize(all.size() + 2);  // of the run and the number of inputs
    return all;
  }
};

}  // namespace

at::Tensor recompute(const Run& run, const variable_list& inputs, const variable_list& captured) {
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
  const size_t count = tensors.size();
  tensors.insert(tensors.end(), captured.begin(), captured.end());
  const bool is_differentiated =
      at::GradMode::is_enabled() &&
      std::ranges::any_of(tensors, [](const at::Tensor& tensor) { return tensor.requires_grad(); });
  const bool is_plain = std::ranges::none_of(
      tensors, [](const at::Tensor& tensor) { return tensor.is_meta() || has_tangent(tensor); });
  return is_differentiated && is_plain ? Recompute::apply(at::TensorList(tensors), run_with_undefined, count)
                                       : run(inputs);
}

}  // namespace attend::autograd
