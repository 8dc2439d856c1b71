// The backward pass for some of the inputs, against the backward pass for all inputs.
#include "sides.h"

namespace attend::benchmarks {
namespace {

/// Returns a side that computes the gradients of some leaves from an output that was computed before.
Side backward_side(const torch::Tensor& output, const Tensors& leaves) {
  const auto direction = torch::linspace(-1, 1, output.size(-1), output.options()).expand_as(output);
  return [=] { return torch::autograd::grad({output}, leaves, {direction}, /*retain_graph=*/true); };
}

using Leaf = torch::Tensor Inputs::*;

/// Returns a row that times the gradient of one leaf against the gradients of all. `attention` gets leaves
/// that require gradients.
Row gradient_row(const std::string& name, double target, Leaf leaf, int64_t length,
                 const std::function<Attention(const Inputs&)>& attention) {
  return {name, target, [=] {
            const at::AutoGradMode graph(true);
            const auto in = Inputs(Sizes::self(8, length, 64)).trained();
            const auto output = attention(in)();
            const auto some = in.*leaf;
            const auto all = backward_side(output, in.all());
            const auto index = leaf == &Inputs::query ? 0U : leaf == &Inputs::key ? 1U : 2U;
            return Sides{.ours = backward_side(output, {some}), .baseline = all, .expected = [=] {
                           return Tensors{all()[index]};
                         }};
          }};
}

Attention softmax_of(const Inputs& in) { return ours(in); }

Attention linear_of(const Inputs& in) {
  return [=] { return linear_attention(in.query, in.key, in.value, {.scale = 1.0}).output; };
}

}  // namespace

std::vector<Row> gradient_rows() {
  constexpr int64_t kLength = 1024, kLinearLength = 8192;
  return {gradient_row("backward of the query alone / of all", 1 / 0.75, &Inputs::query, kLength, softmax_of),
          gradient_row("backward of the value alone / of all", 1 / 0.45, &Inputs::value, kLength, softmax_of),
          gradient_row("linear, backward of the query alone / of all", 0, &Inputs::query, kLinearLength,
                       linear_of),
          gradient_row("linear, backward of the value alone / of all", 0, &Inputs::value, kLinearLength,
                       linear_of)};
}

}  // namespace attend::benchmarks
