// Linear attention, against straightforward ATen code in chunks of 64 steps, or against the library's chunked
// reference.
#include <cmath>

#include "sides.h"

namespace attend::benchmarks {
namespace {

/// Computes causal linear attention without a feature map, [B, H, L, D], in chunks of 64 steps by batched
/// matrix products.
torch::Tensor plain_chunks(const Inputs& in) {
  constexpr int64_t kChunk = 64;
  const auto chunks = [](const torch::Tensor& tensor) { return tensor.unflatten(2, {-1, kChunk}); };
  const auto q = chunks(in.query), k = chunks(in.key), v = chunks(in.value);
  const auto chunk_states = torch::matmul(k.transpose(-2, -1), v);
  const auto state_before = chunk_states.cumsum(2) - chunk_states;
  const auto within = torch::matmul(torch::matmul(q, k.transpose(-2, -1)).tril(), v);
  return (torch::matmul(q, state_before) + within).flatten(2, 3);
}

LinearAttentionParams plain_params() {
  return {.feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .scale = 1};
}

Attention linear(const Inputs& in, LinearAttentionParams params, Backend backend) {
  params.backend = backend;
  return [=] { return linear_attention(in.query, in.key, in.value, params).output; };
}

/// Returns inputs whose keys have norm 1, so that the delta rule is stable.
Inputs normalized_inputs(int64_t heads, int64_t length) {
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
  const auto in = pass == Pass::training ? normalized_inputs(8, 8192).trained() : normalized_inputs(8, 8192);
  return {.ours = side(pass, linear(in, plain_params(), Backend::fused), in.all()),
          .baseline = side(pass, [in] { return plain_chunks(in); }, in.all())};
}

/// Returns sides whose baseline is the library's reference.
Sides reference_sides(Pass pass, int64_t length, LinearAttentionParams params) {
  const auto in =
      pass == Pass::training ? normalized_inputs(8, length).trained() : normalized_inputs(8, length);
  auto leaves = in.all();
  for (auto* tensor : {&params.log_decay, &params.beta}) {
    if (pass == Pass::training && tensor->defined()) leaves.push_back(tensor->requires_grad_());
  }
  return {.ours = side(pass, linear(in, params, Backend::fused), leaves),
          .baseline = side(pass, linear(in, params, Backend::reference), leaves)};
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

/// Returns sides whose baseline computes the same number of tokens in sequences of 1024: the time per token
/// must not grow with the length.
Sides length_sides() {
  constexpr int64_t kParts = 64;
  const auto in = normalized_inputs(1, 1024 * kParts);
  const auto parts = [](const torch::Tensor& tensor) { return tensor.split(1024, 2); };
  const auto q = parts(in.query), k = parts(in.key), v = parts(in.value);
  return {.ours = forward(linear(in, plain_params(), Backend::fused)),
          .baseline =
              [=] {
                Tensors outputs;
                for (size_t n = 0; n < q.size(); ++n) {
                  outputs.push_back(linear_attention(q[n], k[n], v[n], plain_params()).output);
                }
                return outputs;
              },
          .expected = forward([in] { return plain_chunks(in); })};
}

/// The inputs of one step of 32 heads, with the delta rule and a decay.
struct Token {
  torch::Tensor query, key, value, log_decay, beta;

  static Token random() {
    const auto draw = [] { return torch::randn({1, 32, 1, 128}); };
    return {draw() / 8, draw() / 16, draw(), torch::rand({1, 32, 1}) * -0.1, torch::rand({1, 32, 1})};
  }

  /// Returns attend's step, in which each call continues from the state of the previous call.
  Side step(const torch::Tensor& initial) const {
    auto params = plain_params();
    params.log_decay = log_decay;
    params.beta = beta;
    return [in = *this, params, state = initial.clone()]() mutable {
      return Tensors{linear_attention_step(in.query, in.key, in.value, state, params)};
    };
  }
  /// Returns the step in straightforward ATen code.
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
          .baseline = token.plain_step(initial),
          .bytes = static_cast<double>(initial.nbytes())};
}

/// Returns the state of 32 heads after `tokens` tokens: random multiples of the state of one head.
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
      .ours = token.step(late), .baseline = token.step(state_after(10)), .expected = token.plain_step(late)};
}

}  // namespace

std::vector<Row> linear_rows() {
  const auto row = [](const char* name, Pass pass, int64_t length, const auto& make) {
    return Row{name, 4, [=] { return reference_sides(pass, length, make()); }, Threads::all};
  };
  const auto per_step = [] { return gated({1, 8, kLength}); };
  const auto per_channel = [] { return gated({1, 8, kLength, 64}); };
  return {
      {"linear, causal, L = 8192, forward / chunks in plain ATen", 2,
       [] { return plain_sides(Pass::forward); }},
      {"linear, causal, L = 8192, forward + backward / chunks in plain ATen", 2,
       [] { return plain_sides(Pass::training); }},
      row("linear, per-step decay, forward / chunked form", Pass::forward, kLength, per_step),
      row("linear, per-step decay, forward + backward / chunked form", Pass::training, kLength, per_step),
      row("linear, per-channel decay, forward + backward / chunked form", Pass::training, kLength,
          per_channel),
      row("linear, delta rule, forward / chunked form", Pass::forward, kLength,
          [] { return delta(plain_params()); }),
      row("linear, delta rule, forward + backward / chunked form", Pass::training, kLength,
          [] { return delta(plain_params()); }),
      row("linear, delta rule and per-step decay, forward + backward / chunked form", Pass::training, kLength,
          [=] { return delta(per_step()); }),
      row("linear, delta rule and per-channel decay, forward + backward / chunked form", Pass::training,
          kLength, [=] { return delta(per_channel()); }),
      {"linear, one head, 65536 tokens / 64 sequences of 1024", 1 / 1.1, length_sides},
      {"linear, one step, 32 heads, D = 128, delta rule / plain ATen", 0, step_sides},
      {"linear, one step after 1000000 tokens / after 10", 1 / 1.1, late_step_sides, Threads::one,
       /*in_quick=*/false},
  };
}

}  // namespace attend::benchmarks
