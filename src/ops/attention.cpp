// torch.ops.attend.attention and attention_with_lse.
//
// attn_mask is boolean (true = may attend) or floating (added, differentiable) and broadcasts to
// [B, H, Lq, Lk]; is_causal is bottom-right; window is [left, right]; key_lengths is int64 or int32 [B];
// alibi_slopes is [H] or [B, H] and adds -slope * |i + Lk - Lq - j|; softcap c > 0 makes a score
// c * tanh(score / c). The order is scale, softcap, alibi, attn_mask as bias, then the masks. Everything else
// is as in attend/attention.h.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "core/gradients.h"
#include "core/held.h"
#include "core/inputs.h"
#include "functional/attention_arguments.h"
#include "functional/traced_kernels.h"
#include "ops/attention_arguments.h"
#include "ops/attention_kernels.h"

namespace attend::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Returns the arguments without the tensors, which autograd saves separately.
AttentionArguments without_tensors(AttentionArguments arguments) {
  for (auto* tensor : arguments.tensor_members()) *tensor = at::Tensor();
  return arguments;
}

/// Returns the gradients from differentiating the reference, so that they can be differentiated again.
variable_list differentiable_backward(const AttentionArguments& arguments, const at::Tensor& dropout_seed,
                                      const variable_list& grads) {
  const auto call = to_call(arguments, dropout_seed);
  const auto shape = call.shape();
  const variable_list with_all_heads = {
      grads[0].defined() ? with_heads(grads[0]) : grads[0],
      grads[1].defined() ? grads[1].reshape({shape.batch, shape.heads, shape.queries}) : grads[1]};
  auto gradients = attention_backward_with_graph(call, with_all_heads);
  for (size_t n = 0; n < 3; ++n) {
    if (gradients[n].defined()) gradients[n] = without_heads(gradients[n], call.query_dim);
  }
  return gradients;
}

/// Returns the gradients of query, key, value and the tensors of the score modification, computed by the
/// private operator.
variable_list opaque_backward(const AttentionArguments& arguments, const at::Tensor& dropout_seed,
                              const AttentionForwardResult& result, const variable_list& grads) {
  const auto gradients = call_attention_backward(arguments, dropout_seed, result, grads[0], grads[1]);
  variable_list all = {std::get<0>(gradients), std::get<1>(gradients), std::get<2>(gradients)};
  if (arguments.alibi_slopes.defined()) all.push_back(std::get<3>(gradients));
  if (arguments.has_bias()) all.push_back(std::get<4>(gradients));
  return all;
}

/// The autograd function around the private operators.
struct OpaqueAttention : torch::autograd::Function<OpaqueAttention> {
  /// The tensors are parameters besides `arguments` because autograd records only parameters that are
  /// tensors.
  static variable_list forward(AutogradContext* context, const at::Tensor& /*query*/,
                               const at::Tensor& /*key*/, const at::Tensor& /*value*/,
                               at::TensorList /*score_mod*/, const AttentionArguments& arguments,
                               const std::optional<at::Tensor>& dropout_seed) {
    const auto seed = dropout_seed.value_or(at::Tensor());
    const auto [output, logsumexp, logsumexp_low] = call_attention_forward(arguments, seed);
    auto saved = arguments.tensors();
    for (const auto& tensor : {seed, output, logsumexp, logsumexp_low}) saved.push_back(tensor);
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["arguments"] = capsule_of(without_tensors(arguments));
    return {output, logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto arguments = held_in<AttentionArguments>(context->saved_data["arguments"]);
    auto next = saved.begin();
    for (auto* tensor : arguments.tensor_members()) *tensor = *next++;
    auto gradients = at::GradMode::is_enabled()
                         ? differentiable_backward(arguments, next[0], grads)
                         : opaque_backward(arguments, next[0], {next[1], next[2], next[3]}, grads);
    gradients.resize(gradients.size() + 2);  // `arguments` and the seed have no gradient
    return gradients;
  }
};

AttentionWithLse opaque_attention(const AttentionArguments& in) {
  const auto dropout_seed = in.dropout_p > 0 ? draw_seed(in.query.device()) : at::Tensor();
  if (!any_needs_gradient(in.tensors())) {
    const auto result = call_attention_forward(in, dropout_seed);
    return {std::get<0>(result), std::get<1>(result)};
  }
  const auto score_mod = in.score_mod_tensors();
  const auto results = OpaqueAttention::apply(in.query, in.key, in.value, at::TensorList(score_mod), in,
                                              optional_of(dropout_seed));
  return {results[0], results[1]};
}

at::Tensor attention(const AttentionArguments& in) {
  if (is_traced(in.tensors())) return opaque_attention(in).output;
  constexpr auto kFunction = "attention";
  return with_argument_names(
      kFunction, [&] { return attend::attention(in.query, in.key, in.value, to_params(kFunction, in)); });
}

std::tuple<at::Tensor, at::Tensor> attention_with_lse(const AttentionArguments& in) {
  constexpr auto kFunction = "attention_with_lse";
  const auto result = is_traced(in.tensors()) ? opaque_attention(in) : with_argument_names(kFunction, [&] {
    return attend::attention_with_lse(in.query, in.key, in.value, to_params(kFunction, in));
  });
  return {result.output, result.logsumexp};
}

TORCH_LIBRARY_FRAGMENT(attend, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::nondeterministic_seeded};
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), tags); };
  define("attention(" + kAttentionSchema + ") -> Tensor");
  define("attention_with_lse(" + kAttentionSchema + ") -> (Tensor output, Tensor logsumexp)");
}

void implement_attention(torch::Library& library) {
  library.impl("attention", TORCH_FN(AttentionOperator<attention>::call));
  library.impl("attention_with_lse", TORCH_FN(AttentionOperator<attention_with_lse>::call));
}

// One implementation for all dispatch keys: it is differentiable by itself, and vmap decomposes it into the
// operations that it calls.
TORCH_LIBRARY_IMPL(attend, Autograd, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, CPU, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, CUDA, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, Meta, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, FuncTorchBatchedDecomposition, library) { implement_attention(library); }

}  // namespace
}  // namespace attend::ops
