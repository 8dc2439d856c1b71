// torch.ops.attend.attention and attention_with_lse.
//
// attn_mask is boolean (true = may attend) or floating (added, differentiable) and broadcasts to
// [B, H, Lq, Lk]; is_causal is bottom-right; window is [left, right]; key_lengths is int64 or int32 [B];
// alibi_slopes is [H] or [B, H] and adds -slope * |i + Lk - Lq - j|; softcap c > 0 makes a score
// c * tanh(score / c). The order is scale, softcap, alibi, attn_mask as bias, then the masks. Everything else
// is as in attend/attention.h.
//
// On the CPU they check the arguments, draw the dropout seed and call the private operators, which have the
// gradients and the rule for vmap. On other devices they call the functions of C++, which consist of ATen's
// operations there.
#include <torch/library.h>

#include "core/exact_dtype.h"
#include "functional/attention_arguments.h"
#include "ops/attention_arguments.h"
#include "ops/attention_kernels.h"

namespace attend::ops {
namespace {

AttentionForwardResult call_private(const char* function, const AttentionArguments& in) {
  check_arguments(function, in);
  return call_attention_forward(in, in.dropout_p > 0 ? draw_seed(in.query.device()) : at::Tensor());
}

at::Tensor attention(const AttentionArguments& in) {
  constexpr auto kFunction = "attention";
  if (has_private_operators(in.query)) return std::get<0>(call_private(kFunction, in));
  return with_argument_names(
      kFunction, [&] { return attend::attention(in.query, in.key, in.value, to_params(kFunction, in)); });
}

std::tuple<at::Tensor, at::Tensor> attention_with_lse(const AttentionArguments& in) {
  constexpr auto kFunction = "attention_with_lse";
  if (has_private_operators(in.query)) {
    const auto [output, logsumexp, logsumexp_low] = call_private(kFunction, in);
    return {output, logsumexp};
  }
  const auto result = with_argument_names(kFunction, [&] {
    return attend::attention_with_lse(in.query, in.key, in.value, to_params(kFunction, in));
  });
  return {result.output, result.logsumexp};
}

/// The same under vmap, where the tensors are not seen by the kernel of autocast.
at::Tensor vmapped_attention(const AttentionArguments& in) {
  const auto cast = with_autocast(in);
  const ExactDtype exact;
  return attention(cast);
}

std::tuple<at::Tensor, at::Tensor> vmapped_attention_with_lse(const AttentionArguments& in) {
  const auto cast = with_autocast(in);
  const ExactDtype exact;
  return attention_with_lse(cast);
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

// One implementation for all dispatch keys: it consists of operators that are differentiable themselves.
TORCH_LIBRARY_IMPL(attend, Autograd, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, CPU, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, CUDA, library) { implement_attention(library); }
TORCH_LIBRARY_IMPL(attend, Meta, library) { implement_attention(library); }

// Not FuncTorchBatched, whose kernels are not called where no tensor is batched: the seed must be drawn under
// vmap, whose randomness it obeys, there too.
TORCH_LIBRARY_IMPL(attend, FuncTorchVmapMode, library) {
  library.impl("attention", TORCH_FN(AttentionOperator<vmapped_attention>::call));
  library.impl("attention_with_lse", TORCH_FN(AttentionOperator<vmapped_attention_with_lse>::call));
}

}  // namespace
}  // namespace attend::ops
