#include "ops/linear_attention_kernels.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "core/dtypes.h"
#include "core/inputs.h"
#include "functional/traced_kernels.h"

namespace attend::ops {
namespace {

bool is_rounded(const at::Tensor& output) { return output.scalar_type() != compute_type(output); }

LinearForwardResult linear_attention_forward_cpu(const LinearArguments& in) {
  const auto result = fused_linear_attention(to_call(in), in.is_causal);
  const int64_t dim = in.query.dim();
  return {without_heads(result.output, dim).contiguous(), without_heads(result.final_state, dim).contiguous(),
          result.normaliser, is_rounded(result.output) ? result.unrounded : at::Tensor()};
}

LinearForwardResult linear_attention_forward_meta(const LinearArguments& in) {
  to_call(in);
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

TORCH_LIBRARY_FRAGMENT(attend, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), tags); };
  define("_linear_attention_forward(" + kLinearSchema +
         ") -> (Tensor output, Tensor final_state, Tensor normaliser, Tensor unrounded)");
  define("_linear_attention_backward(" + kLinearSchema +
         ", Tensor output, Tensor final_state, Tensor? normaliser, Tensor? unrounded, "
         "Tensor? grad_output, Tensor? grad_final_state) -> (Tensor query, Tensor key, Tensor value, "
         "Tensor log_decay, Tensor beta, Tensor initial_state)");
}

TORCH_LIBRARY_IMPL(attend, CPU, library) {
  library.impl("_linear_attention_forward", TORCH_FN(LinearOperator<linear_attention_forward_cpu>::call));
  library.impl("_linear_attention_backward", TORCH_FN(LinearOperator<linear_attention_backward_cpu>::call));
}

TORCH_LIBRARY_IMPL(attend, Meta, library) {
  library.impl("_linear_attention_forward", TORCH_FN(LinearOperator<linear_attention_forward_meta>::call));
  library.impl("_linear_attention_backward", TORCH_FN(LinearOperator<linear_attention_backward_meta>::call));
}

}  // namespace

LinearForwardResult call_linear_forward(const LinearArguments& arguments) {
  static const auto forward = find_operator<decltype(LinearOperator<linear_attention_forward_cpu>::call)>(
      "attend::_linear_attention_forward");
  return std::apply([](const auto&... values) { return forward.call(values...); }, arguments.as_tuple());
}

LinearGradients call_linear_backward(const LinearArguments& arguments, const LinearForwardResult& result,
                                     const at::Tensor& grad_output, const at::Tensor& grad_final_state) {
  static const auto backward = find_operator<decltype(LinearOperator<linear_attention_backward_cpu>::call)>(
      "attend::_linear_attention_backward");
  const auto& [output, final_state, normaliser, unrounded] = result;
  return std::apply(
      [](const auto&... values) { return backward.call(values...); },
      std::tuple_cat(arguments.as_tuple(),
                     std::make_tuple(output, final_state, optional_of(normaliser), optional_of(unrounded),
                                     optional_of(grad_output), optional_of(grad_final_state))));
}

}  // namespace attend::ops
