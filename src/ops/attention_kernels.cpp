#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <array>

#include "core/inputs.h"
#include "cpu/attention/attention.h"
#include "ops/attention.h"
#include "ops/attention_arguments.h"

namespace attend::ops {
namespace {

/// What the backward operator is called with.
struct BackwardArguments {
  static constexpr size_t kCount = AttentionArguments::kPrivate + 5;

  AttentionArguments attention;
  at::Tensor output, logsumexp, logsumexp_rest;
  at::Tensor grad_output, grad_logsumexp;

  explicit BackwardArguments(const std::vector<c10::IValue>& values)
      : attention(values),
        output(values.at(12).toTensor()),
        logsumexp(values.at(13).toTensor()),
        logsumexp_rest(values.at(14).toTensor()),
        grad_output(tensor_or_undefined(values.at(15))),
        grad_logsumexp(tensor_or_undefined(values.at(16))) {}
};

at::Tensor empty_like_contiguous(const at::Tensor& tensor) {
  return at::empty_symint(tensor.sym_sizes(), tensor.options());
}

}  // namespace

void attention_forward_cpu(const c10::OperatorHandle&, Stack* stack) {
  const AttentionArguments in(torch::jit::pop(*stack, AttentionArguments::kPrivate));
  const auto result = cpu::attention(call_of(in));
  for (const auto& tensor : {result.output, result.logsumexp, result.logsumexp_rest}) {
    stack->emplace_back(without_heads(tensor, in.query.dim()));
  }
}

void attention_forward_meta(const c10::OperatorHandle&, Stack* stack) {
  const AttentionArguments in(torch::jit::pop(*stack, AttentionArguments::kPrivate));
  check_shapes("attention", in);
  auto sizes = in.query.sym_sizes().vec();
  sizes.back() = in.value.sym_size(-1);
  stack->emplace_back(at::empty_symint(sizes, in.query.options()));
  sizes.pop_back();
  const auto options = in.query.options().dtype(compute_type(in.query));
  stack->emplace_back(at::empty_symint(sizes, options));
  stack->emplace_back(at::empty_symint(sizes, options));
}

void attention_backward_cpu(const c10::OperatorHandle&, Stack* stack) {
  const BackwardArguments in(torch::jit::pop(*stack, BackwardArguments::kCount));
  const auto call = call_of(in.attention);
  const auto shape = call.shape();
  const auto rows = [&shape](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.reshape({shape.batch, shape.heads, shape.queries}) : tensor;
  };
  const auto output = with_heads(in.output);
  // Both; autograd drops what nobody asked for.
  constexpr std::array<bool, 2> kWanted = {true, true};
  const auto gradients =
      cpu::attention_backward(call, {output, rows(in.logsumexp), rows(in.logsumexp_rest)},
                              in.grad_output.defined() ? with_heads(in.grad_output) : at::zeros_like(output),
                              rows(in.grad_logsumexp), kWanted);
  for (const auto& gradient : {gradients.query, gradients.key, gradients.value}) {
    stack->emplace_back(without_heads(gradient, call.query_dim).contiguous());
  }
  auto next = gradients.score_mod.begin();
  stack->push_back(in.attention.alibi_slopes.defined() ? c10::IValue(*next++) : c10::IValue());
  stack->push_back(in.attention.has_bias() ? c10::IValue(*next++) : c10::IValue());
}

void attention_backward_meta(const c10::OperatorHandle&, Stack* stack) {
  const auto in = BackwardArguments(torch::jit::pop(*stack, BackwardArguments::kCount)).attention;
  for (const auto& tensor : {in.query, in.key, in.value}) stack->emplace_back(empty_like_contiguous(tensor));
  for (const auto& tensor : {in.alibi_slopes, in.has_bias() ? in.attn_mask : at::Tensor()}) {
    stack->push_back(tensor.defined() ? c10::IValue(empty_like_contiguous(tensor)) : c10::IValue());
  }
}

}  // namespace attend::ops
