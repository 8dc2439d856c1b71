// Modules with their projections: against torch::nn, and decoding with a KV cache against full forwards.
#include "modules.h"

namespace attend::benchmarks {
namespace {

constexpr int64_t kWidth = 512, kHeads = 8;

/// Both modules with the same weights. Inputs are [1, L, E]; torch::nn takes them as [L, 1, E].
struct Modules {
  nn::MultiHeadAttention ours{nn::MultiHeadAttentionOptions(kWidth, kHeads)};
  torch::nn::MultiheadAttention baseline{torch::nn::MultiheadAttentionOptions(kWidth, kHeads)};
  torch::Tensor x;

  explicit Modules(int64_t length) : x(torch::randn({1, length, kWidth})) {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : ours->named_parameters()) {
      baseline->named_parameters()[parameter.key()].copy_(parameter.value());
    }
  }

  Attention run_ours() const {
    return [module = ours, input = x]() mutable { return module(input); };
  }
  Attention run_baseline() const {
    return [module = baseline, input = x]() mutable {
      const auto rows = input.transpose(0, 1);
      return std::get<0>(module(rows, rows, rows)).transpose(0, 1);
    };
  }
};

Sides forward_sides() {
  const Modules modules(4096);
  return {.ours = forward(modules.run_ours()), .baseline = forward(modules.run_baseline())};
}

/// A causal module, its input, and a cache that contains the input except for the last `steps` tokens.
struct Decoder {
  nn::MultiHeadAttention module{nn::MultiHeadAttentionOptions(kWidth, kHeads).is_causal(true)};
  torch::Tensor x;
  KVCache cache;
  int64_t steps;

  Decoder(int64_t length, int64_t steps_)
      : x(torch::randn({1, length, kWidth})), cache(module->make_cache(1, length)), steps(steps_) {
    const torch::NoGradGuard no_grad;
    if (steps < length) module(x.slice(1, 0, length - steps), {}, {}, {.cache = &cache});
  }

  /// Decodes the last `steps` tokens, one token per call.
  Tensors run() {
    const int64_t first = x.size(1) - steps;
    cache.truncate(first);
    Tensors outputs;
    for (int64_t n = first; n < x.size(1); ++n) {
      outputs.push_back(module(x.slice(1, n, n + 1), {}, {}, {.cache = &cache}));
    }
    return {torch::cat(outputs, 1)};
  }
};

/// Returns sides that decode 256 tokens: with a KV cache, and with a full forward for every token.
Sides decode_sides() {
  const auto decoder = std::make_shared<Decoder>(256, 256);
  return {.ours = [decoder] { return decoder->run(); },
          .baseline =
              [decoder] {
                Tensors outputs;
                for (int64_t n = 1; n <= decoder->x.size(1); ++n) {
                  outputs.push_back(decoder->module(decoder->x.slice(1, 0, n)).slice(1, n - 1));
                }
                return Tensors{torch::cat(outputs, 1)};
              },
          .expected = [decoder] { return Tensors{decoder->module(decoder->x)}; }};
}

/// Returns sides that decode 16 steps after 16384 tokens, and 64 steps after 4096 tokens.
Sides longer_decode_sides() {
  const auto longer = std::make_shared<Decoder>(16384, 16);
  const auto shorter = std::make_shared<Decoder>(4096, 16);
  return {.ours = [longer] { return longer->run(); },
          .baseline =
              [shorter] {
                for (int n = 0; n < 3; ++n) shorter->run();
                return shorter->run();
              },
          .expected = [longer] { return Tensors{longer->module(longer->x).slice(1, 16384 - 16)}; }};
}

}  // namespace

Sides module_training_sides(int64_t length) {
  Modules modules(length);
  modules.x.requires_grad_();
  const auto leaves = [&](const torch::nn::Module& module) {
    Tensors all = {modules.x};
    for (const auto& parameter : {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}) {
      all.push_back(module.named_parameters()[parameter]);
    }
    return all;
  };
  return {.ours = forward_backward(modules.run_ours(), leaves(*modules.ours)),
          .baseline = forward_backward(modules.run_baseline(), leaves(*modules.baseline))};
}

std::vector<Row> module_rows() {
  return {
      {"nn::MultiHeadAttention(512, 8), L = 4096, forward / torch::nn", 3.5, forward_sides, Threads::all},
      {"nn::MultiHeadAttention(512, 8), L = 4096, forward + backward / torch::nn", 1.8,
       [] { return module_training_sides(4096); }, Threads::all},
      {"nn::MultiHeadAttention(512, 8), 256 tokens with a KV cache / a full forward for each", 0,
       decode_sides, Threads::all},
      {"nn::MultiHeadAttention(512, 8), a step after 16384 tokens / four steps after 4096", 0.8,
       longer_decode_sides, Threads::all},
  };
}

}  // namespace attend::benchmarks
