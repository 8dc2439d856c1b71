// Linear attention: against plain ATen, in chunks of 64 as one would write it, or the library's own chunked
// form.
#include <cmath>

#include "sides.h"

namespace attend::benchmarks {
namespace {

/// Causal linear attention of features in products of whole tensors: [B, H, L, D] in chunks of 64.
torch::Tensor plain_chunks(const Inputs& in) {
  constexpr int64_t kChunk = 64;
  const auto chunks = [](const torch::Tensor& tensor) { return tensor.unflatten(2, {-1, kChunk}); };
  const auto q = chunks(in.query), k = chunks(in.key), v = chunks(in.value);
  const auto added = torch::matmul(k.transpose(-2, -1), v);
  const auto before = added.cumsum(2) - added;
  const auto within = torch::matmul(torch::matmul(q, k.transpose(-2, -1)).tril(), v);
  return (torch::matmul(q, before) + within).flatten(2, 3);
}

LinearAttentionParams plain_params() {
  return {.feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .scale = 1};
}

Attention linear(const Inputs& in, LinearAttentionParams params, LinearForm form) {
  params.form = form;
  return [=] { return linear_attention(in.query, in.key, in.value, params).output; };
}

/// Keys no longer than 1, as the delta rule wants them.
Inputs inputs_of(int64_t heads, int64_t length) {
  Inputs in(Sizes::self(heads, length, 64));
  in.query = in.query / 8;
  in.key = torch::nn::functional::normalize(in.key, torch::nn::functional::NormalizeFuncOptions().dim(-1));
  return in;
}

enum class Pass { forward, training };

Side side(Pass pass, const Attention& attention, const Tensors& leaves) {
  return pass == Pass::training ? forward_backward(attention, leaves) : forward(attention);
}

Sides plain_sides(Pass pass) {
  const auto in = pass == Pass::training ? inputs_of(8, 8192).trained() : inputs_of(8, 8192);
  return {.ours = side(pass, linear(in, plain_params(), LinearForm::fused), in.all()),
          .theirs = side(pass, [in] { return plain_chunks(in); }, in.all())};
}

/// What the library would do without its kernel.
Sides chunked_sides(Pass pass, int64_t length, LinearAttentionParams params) {
  const auto in = pass == Pass::training ? inputs_of(8, length).trained() : inputs_of(8, length);
  auto leaves = in.all();
  for (auto* tensor : {&params.log_decay, &params.beta}) {
    if (pass == Pass::training && tensor->defined()) leaves.push_back(tensor->requires_grad_());
  }
  return {.ours = side(pass, linear(in, params, LinearForm::fused), leaves),
          .theirs = side(pass, linear(in, params, LinearForm::chunked), leaves)};
}

constexpr int64_t kLength = 2048;

LinearAttentionParams gated(at::IntArrayRef sizes) {
  auto params = plain_params();
  params.log_decay = torch::rand(sizes) * -0.1;
  return params;
}

LinearAttentionParams delta(LinearAttentionParams params) {
  params.beta = torch::rand({1, 8, kLength});
  return params;
}

/// As many tokens in sequences of 1024: what a token costs must not grow with the length.
Sides length_sides() {
  constexpr int64_t kParts = 64;
  const auto in = inputs_of(1, 1024 * kParts);
  const auto parts = [](const torch::Tensor& tensor) { return tensor.split(1024, 2); };
  const auto q = parts(in.query), k = parts(in.key), v = parts(in.value);
  return {.ours = forward(linear(in, plain_params(), LinearForm::fused)),
          .theirs =
              [=] {
                Tensors outputs;
                for (size_t n = 0; n < q.size(); ++n) {
                  outputs.push_back(linear_attention(q[n], k[n], v[n], plain_params()).output);
                }
                return outputs;
              },
          .expected = forward([in] { return plain_chunks(in); })};
}

/// A token of 32 heads, with the delta rule and a decay.
struct Token {
  torch::Tensor query, key, value, log_decay, beta;

  static Token random() {
    const auto draw = [] { return torch::randn({1, 32, 1, 128}); };
    return {draw() / 8, draw() / 16, draw(), torch::rand({1, 32, 1}) * -0.1, torch::rand({1, 32, 1})};
  }

  /// Ours; the state goes on from call to call.
  Side step(const torch::Tensor& initial) const {
    auto params = plain_params();
    params.log_decay = log_decay;
    params.beta = beta;
    return [in = *this, params, state = initial.clone()]() mutable {
      return Tensors{linear_attention_step(in.query, in.key, in.value, state, params)};
    };
  }
  /// As one would write it.
  Side plain_step(const torch::Tensor& initial) const {
    return [in = *this, state = initial.clone()] {
      state.mul_(in.log_decay.exp().unsqueeze(-1));
      const auto written = in.beta.unsqueeze(-1) * (in.value - torch::matmul(in.key, state));
      state.add_(torch::matmul(in.key.transpose(-2, -1), written));
      return Tensors{torch::matmul(in.query, state)};
    };
  }
};

Sides step_sides() {
  const auto token = Token::random();
  const auto initial = torch::randn({1, 32, 128, 128});
  return {.ours = token.step(initial),
          .theirs = token.plain_step(initial),
          .bytes = static_cast<double>(initial.nbytes())};
}

/// The state after so many tokens, of heads of which each is drawn from the first.
torch::Tensor state_after(int64_t tokens) {
  const auto draw = [=] { return torch::randn({1, 1, tokens, 128}); };
  auto params = plain_params();
  params.log_decay = torch::rand({1, 1, tokens}) * -0.1;
  params.beta = torch::rand({1, 1, tokens});
  const auto state = linear_attention(draw() / 8, draw() / 16, draw(), params).final_state;
  return (state * torch::randn({32, 1, 1})).contiguous();
}

Sides late_step_sides() {
  const auto token = Token::random();
  const auto late = state_after(1000000);
  return {
      .ours = token.step(late), .theirs = token.step(state_after(10)), .expected = token.plain_step(late)};
}

}  // namespace

std::vector<Row> linear_rows() {
  const auto row = [](const char* name, Pass pass, int64_t length, const auto& make) {
    return Row{name, 4, [=] { return chunked_sides(pass, length, make()); }, Threads::all};
  };
  const auto of_step = [] { return gated({1, 8, kLength}); };
  const auto of_channel = [] { return gated({1, 8, kLength, 64}); };
  return {
      {"linear, causal, L = 8192, forward / chunks in plain ATen", 2,
       [] { return plain_sides(Pass::forward); }},
      {"linear, causal, L = 8192, forward + backward / chunks in plain ATen", 2,
       [] { return plain_sides(Pass::training); }},
      row("linear, a decay of each step, forward / chunked form", Pass::forward, kLength, of_step),
      row("linear, a decay of each step, forward + backward / chunked form", Pass::training, kLength,
          of_step),
      row("linear, a decay of each channel, forward + backward / chunked form", Pass::training, kLength,
          of_channel),
      row("linear, delta rule, forward / chunked form", Pass::forward, kLength,
          [] { return delta(plain_params()); }),
      row("linear, delta rule, forward + backward / chunked form", Pass::training, kLength,
          [] { return delta(plain_params()); }),
      row("linear, delta rule and a decay of each step, forward + backward / chunked form", Pass::training,
          kLength, [=] { return delta(of_step()); }),
      row("linear, delta rule and a decay of each channel, forward + backward / chunked form", Pass::training,
          kLength, [=] { return delta(of_channel()); }),
      {"linear, one head, 65536 tokens / 64 sequences of 1024", 1 / 1.1, length_sides},
      {"linear, a token, 32 heads, D = 128, delta rule / plain ATen", 0, step_sides},
      {"linear, a token after 1000000 / after 10", 1 / 1.1, late_step_sides, Threads::one,
       /*in_quick=*/false},
  };
}

}  // namespace attend::benchmarks
