#include "ops/attention_kernels.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <array>

#include "core/dtypes.h"
#include "core/inputs.h"
#include "functional/traced_kernels.h"

namespace attend::ops {
namespace {

AttentionForwardResult attention_forward_cpu(const AttentionArguments& in,
                                             const std::optional<at::Tensor>& dropout_seed) {
  const auto result = fused_attention(to_call(in, dropout_seed.value_or(at::Tensor())));
  const int64_t dim = in.query.dim();
  return {without_heads(result.output, dim), without_heads(result.logsumexp, dim),
          without_heads(result.logsumexp_low, dim)};
}

AttentionForwardResult attention_forward_meta(const AttentionArguments& in,
                                              const std::optional<at::Tensor>& /*dropout_seed*/) {
  check_arguments("attention", in);
  auto sizes = in.query.sym_sizes().vec();
  sizes.back() = in.value.sym_size(-1);
  const auto output = at::empty_symint(sizes, in.query.options());
  sizes.pop_back();
  const auto options = in.query.options().dtype(compute_type(in.query));
  return {output, at::empty_symint(sizes, options), at::empty_symint(sizes, options)};
}

AttentionGradients attention_backward_cpu(const AttentionArguments& in,
                                          const std::optional<at::Tensor>& dropout_seed,
                                          const at::Tensor& output, const at::Tensor& logsumexp,
                                          const at::Tensor& logsumexp_low,
                                          const std::optional<at::Tensor>& grad_output,
                                          const std::optional<at::Tensor>& grad_logsumexp) {
  const auto call = to_call(in, dropout_seed.value_or(at::Tensor()));
  const auto shape = call.shape();
  const auto rows = [&shape](const at::Tensor& tensor) {
    return tensor.reshape({shape.batch, shape.heads, shape.queries});
  };
  const auto all_heads = with_heads(output);
  // Autograd drops gradients that were not requested.
  constexpr std::array<bool, 5> kWanted = {true, true, true, true, true};
  const auto gradients =
      fused_attention_backward(call, {all_heads, rows(logsumexp), rows(logsumexp_low)},
                               grad_output ? with_heads(*grad_output) : at::Tensor(),
                               grad_logsumexp ? rows(*grad_logsumexp) : at::Tensor(), kWanted);
  const auto as_given = [&call](const at::Tensor& gradient) {
    return without_heads(gradient, call.query_dim).contiguous();
  };
  auto next = gradients.score_mod.begin();
  const auto alibi_slopes = in.alibi_slopes.defined() ? *next++ : at::Tensor();
  const auto bias = in.has_bias() ? *next++ : at::Tensor();
  return {as_given(gradients.query), as_given(gradients.key), as_given(gradients.value), alibi_slopes, bias};
}

AttentionGradients attention_backward_meta(const AttentionArguments& in,
                                           const std::optional<at::Tensor>& /*dropout_seed*/,
                                           const at::Tensor& /*output*/, const at::Tensor& /*logsumexp*/,
                                           const at::Tensor& /*logsumexp_low*/,
                                           const std::optional<at::Tensor>& /*grad_output*/,
                                           const std::optional<at::Tensor>& /*grad_logsumexp*/) {
  return {empty_contiguous(in.query), empty_contiguous(in.key), empty_contiguous(in.value),
          in.alibi_slopes.defined() ? empty_contiguous(in.alibi_slopes) : at::Tensor(),
          in.has_bias() ? empty_contiguous(in.attn_mask) : at::Tensor()};
}

TORCH_LIBRARY_FRAGMENT(attend, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), tags); };
  define("_attention_forward(" + kAttentionSchema +
         ", Tensor? dropout_seed=None) -> (Tensor output, Tensor logsumexp, Tensor logsumexp_low)");
  define("_attention_backward(" + kAttentionSchema +
         ", Tensor? dropout_seed=None, Tensor output, Tensor logsumexp, Tensor logsumexp_low, "
         "Tensor? grad_output, Tensor? grad_logsumexp) -> (Tensor query, Tensor key, Tensor value, "
         "Tensor alibi_slopes, Tensor attn_mask)");
}

TORCH_LIBRARY_IMPL(attend, CPU, library) {
  library.impl("_attention_forward", TORCH_FN(AttentionOperator<attention_forward_cpu>::call));
  library.impl("_attention_backward", TORCH_FN(AttentionOperator<attention_backward_cpu>::call));
}

TORCH_LIBRARY_IMPL(attend, Meta, library) {
  library.impl("_attention_forward", TORCH_FN(AttentionOperator<attention_forward_meta>::call));
  library.impl("_attention_backward", TORCH_FN(AttentionOperator<attention_backward_meta>::call));
}

}  // namespace

AttentionForwardResult call_attention_forward(const AttentionArguments& arguments,
                                              const at::Tensor& dropout_seed) {
  static const auto forward =
      find_operator<decltype(AttentionOperator<attention_forward_cpu>::call)>("attend::_attention_forward");
  return std::apply([](const auto&... values) { return forward.call(values...); },
                    std::tuple_cat(arguments.as_tuple(), std::make_tuple(optional_of(dropout_seed))));
}

AttentionGradients call_attention_backward(const AttentionArguments& arguments,
                                           const at::Tensor& dropout_seed,
                                           const AttentionForwardResult& result,
                                           const at::Tensor& grad_output, const at::Tensor& grad_logsumexp) {
  static const auto backward =
      find_operator<decltype(AttentionOperator<attention_backward_cpu>::call)>("attend::_attention_backward");
  return std::apply([](const auto&... values) { return backward.call(values...); },
                    std::tuple_cat(arguments.as_tuple(), std::make_tuple(optional_of(dropout_seed)), result,
                                   std::make_tuple(optional_of(grad_output), optional_of(grad_logsumexp))));
}

}  // namespace attend::ops
