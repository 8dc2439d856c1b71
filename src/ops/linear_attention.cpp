// torch.ops.attend.linear_attention: as in attend/linear_attention.h.
#include <ATen/ops/empty.h>
#include <attend/linear_attention.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <string>
#include <tuple>

#include "core/checks.h"
#include "core/dtypes.h"
#include "core/gradients.h"
#include "core/held.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "functional/linear_attention_arguments.h"
#include "functional/traced_kernels.h"
#include "ops/dispatch.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The parameters that every schema of linear attention has.
const std::string kLinearSchema =
    "Tensor query, Tensor key, Tensor value, *, str feature_map=\"elu_plus_one\", bool normalize=True, "
    "bool is_causal=False, Tensor? log_decay=None, Tensor? beta=None, Tensor? initial_state=None, "
    "float? scale=None";

/// The values of these parameters. A tensor that is None in Python is undefined here.
struct LinearArguments {
  at::Tensor query, key, value;
  std::string feature_map;
  bool normalize, is_causal;
  at::Tensor log_decay, beta, initial_state;
  std::optional<double> scale;

  variable_list tensors() const { return {query, key, value, log_decay, beta, initial_state}; }
  /// Returns pointers to the members that are tensors, in the order of `tensors`.
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

  /// Returns the members in the order of the schema.
  auto as_tuple() const {
    return std::make_tuple(query, key, value, c10::string_view(feature_map), normalize, is_causal,
                           optional_of(log_decay), optional_of(beta), optional_of(initial_state), scale);
  }
};

/// `call` is `function` with the parameters of an operator's schema: the fields of LinearArguments one by
/// one, followed by the remaining parameters of `function`.
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

/// The output and the final state.
using LinearResult = std::tuple<at::Tensor, at::Tensor>;

FeatureMap to_feature_map(const std::string& name) {
  if (name == "elu_plus_one") return FeatureMap::elu_plus_one;
  if (name == "relu") return FeatureMap::relu;
  if (name == "identity") return FeatureMap::identity;
  checks::fail("linear_attention", "feature_map", "elu_plus_one, relu or identity", name);
}

LinearAttentionParams to_params(const LinearArguments& in) {
  return {.feature_map = to_feature_map(in.feature_map),
          .normalize = in.normalize,
          .is_causal = in.is_causal,
          .log_decay = in.log_decay,
          .beta = in.beta,
          .scale = in.scale,
          .initial_state = in.initial_state};
}

LinearAttentionCall to_call(const LinearArguments& in) {
  return checked_arguments("linear_attention", in.query, in.key, in.value, to_params(in)).call;
}

LinearResult compute(const LinearArguments& in) {
  const auto result = attend::linear_attention(in.query, in.key, in.value, to_params(in));
  return {result.output, result.final_state};
}

// ---- the private operators: the fused kernels as opaque operations, as they appear in a traced graph

/// The output, the final state, and two values for the backward: the normaliser [B, H, Lq] and the output
/// before rounding [B, H, Lq, Dv]. Both have compute type, and are undefined without `normalize`. The output
/// before rounding is also undefined if the output has compute type.
using LinearForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// The gradients of query, key, value, log_decay, beta and initial_state; undefined for tensors that were not
/// given.
using LinearGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

bool is_rounded(const at::Tensor& output) { return output.scalar_type() != compute_type(output); }

LinearForwardResult linear_attention_forward_cpu(const LinearArguments& in) {
  const auto result = fused_linear_attention(to_call(in), in.is_causal);
  const int64_t dim = in.query.dim();
  return {without_heads(result.output, dim).contiguous(), without_heads(result.final_state, dim).contiguous(),
          result.normaliser, is_rounded(result.output) ? result.unrounded : at::Tensor()};
}

LinearForwardResult linear_attention_forward_meta(const LinearArguments& in) {
  if (torch_private::has_symbolic_sizes(in.tensors())) {
    check_inputs("linear_attention", in.query, in.key,
                 in.value);  // other arguments are checked once sizes are known
    to_params(in);
  } else {
    to_call(in);
  }
  const auto options = in.query.options().dtype(compute_type(in.query));
  auto sizes = in.query.sym_sizes().vec();
  sizes.back() = in.value.sym_size(-1);
  const auto output = at::empty_symint(sizes, in.query.options());
  auto state_sizes = sizes;
  state_sizes.back() = sizes.back() + (in.normalize ? 1 : 0);
  state_sizes[sizes.size() - 2] = in.query.sym_size(-1);
  const auto final_state = at::empty_symint(state_sizes, options);
  if (!in.normalize) return {output, final_state, at::Tensor(), at::Tensor()};
  if (sizes.size() == 3) sizes.insert(sizes.begin() + 1, 1);
  while (sizes.size() < 4) sizes.insert(sizes.begin(), 1);
  const auto unrounded = is_rounded(output) ? at::empty_symint(sizes, options) : at::Tensor();
  sizes.pop_back();
  return {output, final_state, at::empty_symint(sizes, options), unrounded};
}

LinearGradients linear_attention_backward_cpu(const LinearArguments& in, const at::Tensor& output,
                                              const at::Tensor& final_state,
                                              const std::optional<at::Tensor>& normaliser,
                                              const std::optional<at::Tensor>& unrounded,
                                              const std::optional<at::Tensor>& grad_output,
                                              const std::optional<at::Tensor>& grad_final_state) {
  const auto call = to_call(in);
  const auto all_heads = [&](const std::optional<at::Tensor>& tensor) {
    return tensor ? with_heads(*tensor) : at::Tensor();
  };
  const auto gradients = fused_linear_attention_backward(
      call, in.is_causal,
      {all_heads(output), all_heads(final_state), normaliser.value_or(at::Tensor()),
       in.normalize ? unrounded.value_or(all_heads(output)) : at::Tensor()},
      all_heads(grad_output), all_heads(grad_final_state));
  const auto as_given = [](const at::Tensor& gradient, const at::Tensor& given) {
    return given.defined() ? gradient.reshape(given.sizes()).to(given.scalar_type()).contiguous()
                           : at::Tensor();
  };
  return {as_given(gradients.query, in.query), as_given(gradients.key, in.key),
          as_given(gradients.value, in.value), as_given(gradients.log_decay, in.log_decay),
          as_given(gradients.beta, in.beta),   as_given(gradients.initial_state, in.initial_state)};
}

LinearGradients linear_attention_backward_meta(const LinearArguments& in, const at::Tensor& /*output*/,
                                               const at::Tensor& /*final_state*/,
                                               const std::optional<at::Tensor>& /*normaliser*/,
                                               const std::optional<at::Tensor>& /*unrounded*/,
                                               const std::optional<at::Tensor>& /*grad_output*/,
                                               const std::optional<at::Tensor>& /*grad_final_state*/) {
  const auto empty = [](const at::Tensor& tensor) {
    return tensor.defined() ? empty_contiguous(tensor) : at::Tensor();
  };
  return {empty(in.query),     empty(in.key),  empty(in.value),
          empty(in.log_decay), empty(in.beta), empty(in.initial_state)};
}

LinearForwardResult call_linear_forward(const LinearArguments& arguments) {
  static const auto forward = find_operator<decltype(LinearOperator<linear_attention_forward_cpu>::call)>(
      "attend::_linear_attention_forward");
  return std::apply([](const auto&... values) { return forward.call(values...); }, arguments.as_tuple());
}

/// Calls the backward operator. `saved` holds the results of the forward operator.
variable_list call_linear_backward(const LinearArguments& arguments, at::TensorList saved,
                                   const variable_list& grads) {
  static const auto backward = find_operator<decltype(LinearOperator<linear_attention_backward_cpu>::call)>(
      "attend::_linear_attention_backward");
  const auto gradients = std::apply(
      [](const auto&... values) { return backward.call(values...); },
      std::tuple_cat(arguments.as_tuple(),
                     std::make_tuple(saved[0], saved[1], optional_of(saved[2]), optional_of(saved[3]),
                                     optional_of(grads[0]), optional_of(grads[1]))));
  return std::apply([](const auto&... each) { return variable_list{each...}; }, gradients);
}

// ---- the public operator

/// Returns gradients that can be differentiated again; undefined for tensors that require no gradient.
variable_list differentiable_linear_backward(LinearArguments in, const variable_list& grads) {
  for (auto* tensor : in.tensor_members()) *tensor = as_grad_leaf(*tensor, /*create_graph=*/true);
  const auto [output, final_state] = compute(in);
  return gradients_of(in.tensors(), {output, final_state}, grads, /*create_graph=*/true,
                      /*retain_graph=*/true);
}

/// Returns the arguments without the tensors, which autograd saves separately.
LinearArguments without_tensors(LinearArguments arguments) {
  for (auto* tensor : arguments.tensor_members()) *tensor = at::Tensor();
  return arguments;
}

/// The autograd function around the private operators.
struct OpaqueLinearAttention : torch::autograd::Function<OpaqueLinearAttention> {
  /// The tensors are parameters besides `arguments` because autograd records only parameters that are
  /// tensors.
  static variable_list forward(AutogradContext* context, at::TensorList /*given_tensors*/,
                               const LinearArguments& arguments) {
    const auto [output, final_state, normaliser, unrounded] = call_linear_forward(arguments);
    auto saved = arguments.tensors();
    for (const auto& tensor : {output, final_state, normaliser, unrounded}) saved.push_back(tensor);
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["arguments"] = capsule_of(without_tensors(arguments));
    return {output, final_state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto arguments = held_in<LinearArguments>(context->saved_data["arguments"]);
    const auto saved = context->get_saved_variables();
    size_t next = 0;
    for (auto* tensor : arguments.tensor_members()) *tensor = saved[next++];
    const auto all = at::GradMode::is_enabled()
                         ? differentiable_linear_backward(arguments, grads)
                         : call_linear_backward(arguments, at::TensorList(saved).slice(next), grads);
    variable_list gradients;
    for (size_t n = 0; n < all.size(); ++n) {
      if (saved[n].defined()) gradients.push_back(all[n]);
    }
    gradients.emplace_back();  // `arguments` itself has no gradient
    return gradients;
  }
};

LinearResult linear_attention(const LinearArguments& in) {
  const auto tensors = in.given_tensors();
  if (!is_traced(tensors)) return compute(in);
  if (!any_needs_gradient(tensors)) {
    const auto result = call_linear_forward(in);
    return {std::get<0>(result), std::get<1>(result)};
  }
  const auto results = OpaqueLinearAttention::apply(at::TensorList(tensors), in);
  return {results[0], results[1]};
}

// ---- registration

TORCH_LIBRARY_FRAGMENT(attend, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), tags); };
  define("linear_attention(" + kLinearSchema + ") -> (Tensor output, Tensor final_state)");
  define("_linear_attention_forward(" + kLinearSchema +
         ") -> (Tensor output, Tensor final_state, Tensor normaliser, Tensor unrounded)");
  define("_linear_attention_backward(" + kLinearSchema +
         ", Tensor output, Tensor final_state, Tensor? normaliser, Tensor? unrounded, "
         "Tensor? grad_output, Tensor? grad_final_state) -> (Tensor query, Tensor key, Tensor value, "
         "Tensor log_decay, Tensor beta, Tensor initial_state)");
}

void implement_linear_attention(torch::Library& library) {
  library.impl("linear_attention", TORCH_FN(LinearOperator<linear_attention>::call));
}

// One implementation for all dispatch keys: it is differentiable by itself, and vmap decomposes it into the
// operations that it calls.
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
