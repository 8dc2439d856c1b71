// torch.ops.attend.linear_attention: as in attend/linear_attention.h.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <attend/linear_attention.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <string>
#include <tuple>

#include "core/checks.h"
#include "core/compute_type.h"
#include "core/gradients.h"
#include "core/inputs.h"
#include "ops/dispatch.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The arguments in every schema of linear attention.
const std::string kLinearSchema =
    "Tensor query, Tensor key, Tensor value, *, str feature_map=\"elu_plus_one\", bool normalize=True, "
    "bool is_causal=False, Tensor? log_decay=None, Tensor? beta=None, Tensor? initial_state=None, "
    "float? scale=None";

/// Their values. A tensor that was None is undefined.
struct LinearArguments {
  at::Tensor query, key, value;
  std::string feature_map;
  bool normalize, is_causal;
  at::Tensor log_decay, beta, initial_state;
  std::optional<double> scale;

  variable_list tensors() const { return {query, key, value, log_decay, beta, initial_state}; }
  /// The members that `tensors` reads, in the same order.
  std::array<at::Tensor*, 6> tensor_members() {
    return {&query, &key, &value, &log_decay, &beta, &initial_state};
  }
  variable_list given_tensors() const {
    variable_list given;
    for (const auto& tensor : tensors()) {
      if (tensor.defined()) given.push_back(tensor);
    }
    return given;
  }

  /// In the order of the schema.
  auto as_tuple() const {
    return std::make_tuple(query, key, value, c10::string_view(feature_map), normalize, is_causal,
                           optional_of(log_decay), optional_of(beta), optional_of(initial_state), scale);
  }
};

/// `call` is `function` with the parameters of an operator's schema: those of LinearArguments one by one,
/// then the function's others.
template <auto function>
struct LinearOperator;
template <class Result, class... Others, Result (*function)(const LinearArguments&, Others...)>
struct LinearOperator<function> {
  static Result call(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     c10::string_view feature_map, bool normalize, bool is_causal,
                     const std::optional<at::Tensor>& log_decay, const std::optional<at::Tensor>& beta,
                     const std::optional<at::Tensor>& initial_state, std::optional<double> scale,
                     Others... others) {
    return function({.query = query,
                     .key = key,
                     .value = value,
                     .feature_map = std::string(feature_map),
                     .normalize = normalize,
                     .is_causal = is_causal,
                     .log_decay = log_decay.value_or(at::Tensor()),
                     .beta = beta.value_or(at::Tensor()),
                     .initial_state = initial_state.value_or(at::Tensor()),
                     .scale = scale},
                    others...);
  }
};

/// Output and final state.
using LinearResult = std::tuple<at::Tensor, at::Tensor>;
/// The gradients of query, key, value, log_decay, beta and initial_state; undefined for those not given.
using LinearGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

FeatureMap to_feature_map(const std::string& name) {
  if (name == "elu_plus_one") return FeatureMap::elu_plus_one;
  if (name == "relu") return FeatureMap::relu;
  if (name == "identity") return FeatureMap::identity;
  checks::fail("linear_attention", "feature_map", "elu_plus_one, relu or identity", name);
}

LinearResult compute(const LinearArguments& in) {
  const auto result = attend::linear_attention(in.query, in.key, in.value,
                                               {.feature_map = to_feature_map(in.feature_map),
                                                .normalize = in.normalize,
                                                .is_causal = in.is_causal,
                                                .log_decay = in.log_decay,
                                                .beta = in.beta,
                                                .scale = in.scale,
                                                .initial_state = in.initial_state});
  return {result.output, result.final_state};
}

/// The gradients of the tensors that require one, undefined for the others.
variable_list gradients_of(LinearArguments in, const variable_list& grads, bool create_graph) {
  const at::AutoGradMode graph(true);
  for (auto* tensor : in.tensor_members()) *tensor = as_grad_leaf(*tensor, create_graph);
  const auto [output, final_state] = compute(in);
  return attend::gradients_of(in.tensors(), {output, final_state}, grads, create_graph,
                                /*retain_graph=*/create_graph);
}

// ---- the private operators, which a traced graph contains

LinearResult linear_attention_forward_cpu(const LinearArguments& in) {
  const auto [output, final_state] = compute(in);
  return {output.contiguous(), final_state.contiguous()};
}

LinearResult linear_attention_forward_meta(const LinearArguments& in) {
  check_inputs("linear_attention", in.query, in.key, in.value);
  to_feature_map(in.feature_map);
  auto sizes = in.query.sym_sizes().vec();
  sizes.back() = in.value.sym_size(-1);
  const auto output = at::empty_symint(sizes, in.query.options());
  sizes.back() = sizes.back() + (in.normalize ? 1 : 0);
  sizes[sizes.size() - 2] = in.query.sym_size(-1);
  return {output, at::empty_symint(sizes, in.query.options().dtype(compute_type(in.query)))};
}

/// Computes the forward pass again, with its graph.
LinearGradients linear_attention_backward_cpu(const LinearArguments& arguments,
                                              const std::optional<at::Tensor>& grad_output,
                                              const std::optional<at::Tensor>& grad_final_state) {
  auto in = arguments;
  for (auto* tensor : in.tensor_members()) {
    if (tensor->defined()) *tensor = tensor->detach().requires_grad_();
  }
  const auto gradients =
      gradients_of(in, {grad_output.value_or(at::Tensor()), grad_final_state.value_or(at::Tensor())},
                   /*create_graph=*/false);
  const auto given = in.tensors();
  // An input that the results don't depend on, as the decay where there are no keys, has no gradient.
  const auto dense = [&](size_t n) {
    if (!given[n].defined()) return at::Tensor();
    return gradients[n].defined() ? gradients[n].contiguous() : at::zeros_like(given[n]).contiguous();
  };
  return {dense(0), dense(1), dense(2), dense(3), dense(4), dense(5)};
}

LinearGradients linear_attention_backward_meta(const LinearArguments& in,
                                               const std::optional<at::Tensor>& /*grad_output*/,
                                               const std::optional<at::Tensor>& /*grad_final_state*/) {
  const auto empty = [](const at::Tensor& tensor) {
    return tensor.defined() ? empty_contiguous(tensor) : at::Tensor();
  };
  return {empty(in.query),     empty(in.key),  empty(in.value),
          empty(in.log_decay), empty(in.beta), empty(in.initial_state)};
}

LinearResult call_linear_forward(const LinearArguments& arguments) {
  static const auto forward = find_operator<decltype(LinearOperator<linear_attention_forward_cpu>::call)>(
      "attend::_linear_attention_forward");
  return std::apply([](const auto&... values) { return forward.call(values...); }, arguments.as_tuple());
}

variable_list call_linear_backward(const LinearArguments& arguments, const variable_list& grads) {
  static const auto backward = find_operator<decltype(LinearOperator<linear_attention_backward_cpu>::call)>(
      "attend::_linear_attention_backward");
  const auto gradients = std::apply(
      [](const auto&... values) { return backward.call(values...); },
      std::tuple_cat(arguments.as_tuple(), std::make_tuple(optional_of(grads[0]), optional_of(grads[1]))));
  return std::apply([](const auto&... each) { return variable_list{each...}; }, gradients);
}

// ---- the public operator

/// The arguments as a value of the autograd graph; without the tensors, which the graph saves itself.
struct LinearArgumentsHolder : torch::CustomClassHolder {
  explicit LinearArgumentsHolder(LinearArguments held) : arguments(std::move(held)) {
    for (auto* tensor : arguments.tensor_members()) *tensor = at::Tensor();
  }
  LinearArguments arguments;
};

/// The private operators with their gradients.
struct OpaqueLinearAttention : torch::autograd::Function<OpaqueLinearAttention> {
  /// Autograd finds the inputs that require a gradient among the parameters that are tensors.
  static variable_list forward(AutogradContext* context, at::TensorList /*given_tensors*/,
                               const LinearArguments& arguments) {
    context->save_for_backward(arguments.tensors());
    context->set_materialize_grads(false);
    context->saved_data["arguments"] =
        c10::IValue::make_capsule(c10::make_intrusive<LinearArgumentsHolder>(arguments));
    const auto [output, final_state] = call_linear_forward(arguments);
    return {output, final_state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto arguments = c10::static_intrusive_pointer_cast<LinearArgumentsHolder>(
                         context->saved_data["arguments"].toCapsule())
                         ->arguments;
    const auto saved = context->get_saved_variables();
    auto next = saved.begin();
    for (auto* tensor : arguments.tensor_members()) *tensor = *next++;
    const auto all = at::GradMode::is_enabled() ? gradients_of(arguments, grads, /*create_graph=*/true)
                                                : call_linear_backward(arguments, grads);
    variable_list gradients;
    for (size_t n = 0; n < saved.size(); ++n) {
      if (saved[n].defined()) gradients.push_back(all[n]);
    }
    gradients.emplace_back();  // of the arguments
    return gradients;
  }
};

LinearResult linear_attention(const LinearArguments& in) {
  const auto tensors = in.given_tensors();
  if (!is_traced(tensors)) return compute(in);
  if (!is_differentiated(tensors)) return call_linear_forward(in);
  const auto results = OpaqueLinearAttention::apply(at::TensorList(tensors), in);
  return {results[0], results[1]};
}

// ---- registration

TORCH_LIBRARY_FRAGMENT(attend, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), tags); };
  define("linear_attention(" + kLinearSchema + ") -> (Tensor output, Tensor final_state)");
  define("_linear_attention_forward(" + kLinearSchema + ") -> (Tensor output, Tensor final_state)");
  define("_linear_attention_backward(" + kLinearSchema +
         ", Tensor? grad_output, Tensor? grad_final_state) -> (Tensor query, Tensor key, Tensor value, "
         "Tensor log_decay, Tensor beta, Tensor initial_state)");
}

void implement_linear_attention(torch::Library& library) {
  library.impl("linear_attention", TORCH_FN(LinearOperator<linear_attention>::call));
}

// The same kernel for all keys: it has its own autograd, and vmap sees the operations inside.
TORCH_LIBRARY_IMPL(attend, Autograd, library) { implement_linear_attention(library); }
TORCH_LIBRARY_IMPL(attend, CUDA, library) { implement_linear_attention(library); }
TORCH_LIBRARY_IMPL(attend, FuncTorchBatchedDecomposition, library) { implement_linear_attention(library); }

TORCH_LIBRARY_IMPL(attend, CPU, library) {
  implement_linear_attention(library);
  library.impl("_linear_attention_forward", TORCH_FN(LinearOperator<linear_attention_forward_cpu>::call));
  library.impl("_linear_attention_backward", TORCH_FN(LinearOperator<linear_attention_backward_cpu>::call));
}

TORCH_LIBRARY_IMPL(attend, Meta, library) {
  implement_linear_attention(library);
  library.impl("_linear_attention_forward", TORCH_FN(LinearOperator<linear_attention_forward_meta>::call));
  library.impl("_linear_attention_backward", TORCH_FN(LinearOperator<linear_attention_backward_meta>::call));
}

}  // namespace
}  // namespace attend::ops
