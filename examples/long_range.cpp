// Compares four token mixers of equal width, softmax attention, linear attention, retention and a gated delta
// network: how much they recall after training, and the time and memory of a training step by length. Writes
// an SVG with three charts.
//
// The task is multi-query associative recall (Arora 2023): a sequence lists pairs of a key and a value, and
// then asks for the value of each key.
#include <attend/attend.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "command_line.h"
#include "progress.h"

namespace {

constexpr int64_t width = 64, num_heads = 2, num_layers = 2;
constexpr int64_t num_keys = 64, num_values = 64, vocabulary = 1 + num_keys + num_values;  // 0 is filler
constexpr int64_t max_trained_pairs = 16;
const std::vector<int64_t> tested_pairs = {4, 8, 16, 32, 64};

struct Options {
  int64_t steps = 2000, batch = 32, longest = 65536, seed = 0;
  std::string output;
};

// ---- the task

struct Batch {
  torch::Tensor tokens;   ///< [B, 4 pairs]
  torch::Tensor targets;  ///< [B, 4 pairs]: the value at each question, -100 elsewhere
};

/// Makes sequences of 4 * `pairs` tokens. The first half lists keys and their values; the second half has the
/// keys at random positions among filler tokens.
Batch make_batch(int64_t batch, int64_t pairs) {
  const auto keys = torch::rand({batch, num_keys}).argsort(1, /*descending=*/false).slice(1, 0, pairs) + 1;
  const auto values = torch::randint(1 + num_keys, vocabulary, {batch, pairs}, torch::kLong);
  auto tokens = torch::zeros({batch, 4 * pairs}, torch::kLong), targets = torch::full_like(tokens, -100);
  tokens.slice(1, 0, 2 * pairs, 2).copy_(keys);
  tokens.slice(1, 1, 2 * pairs, 2).copy_(values);
  const auto positions =
      torch::rand({batch, 2 * pairs}).argsort(1, /*descending=*/false).slice(1, 0, pairs) + 2 * pairs;
  tokens.scatter_(1, positions, keys);
  targets.scatter_(1, positions, values);
  return {tokens, targets};
}

// ---- the model

/// A causal token mixer, [B, L, width] -> [B, L, width].
struct Mixer {
  std::string name;
  bool has_convolution;  ///< whether the mixer contains a short convolution
  std::function<
      std::pair<std::shared_ptr<torch::nn::Module>, std::function<torch::Tensor(const torch::Tensor&)>>()>
      make;
};

template <typename Module>
auto mixer_of(Module module) {
  return std::pair(std::shared_ptr<torch::nn::Module>(module.ptr()),
                   std::function<torch::Tensor(const torch::Tensor&)>(
                       [module](const torch::Tensor& x) mutable { return module(x); }));
}

std::vector<Mixer> mixers() {
  using namespace attend::nn;
  return {
      {"softmax", false,
       [] {
         return mixer_of(
             MultiHeadAttention(MultiHeadAttentionOptions(width, num_heads).is_causal(true).bias(false)));
       }},
      {"linear", false, [] { return mixer_of(LinearAttention(width, num_heads)); }},
      {"retention", false,
       [] {
         return mixer_of(Retention(RetentionOptions(width, num_heads).value_head_dim(width / num_heads)));
       }},
      {"gated delta", true,
       [] {
         return mixer_of(
             GatedDeltaNet(GatedDeltaNetOptions(width, num_heads).value_head_dim(width / num_heads)));
       }},
  };
}

/// A residual layer: a causal convolution over four tokens, unless the mixer contains one, the mixer, and a
/// feed-forward network.
class LayerImpl : public torch::nn::Module {
 public:
  explicit LayerImpl(const Mixer& mixer)
      : norm1_(register_module("norm1", norm())),
        norm2_(register_module("norm2", norm())),
        up_(register_module("up", torch::nn::Linear(width, 2 * width))),
        down_(register_module("down", torch::nn::Linear(2 * width, width))) {
    if (!mixer.has_convolution) {
      conv_ =
          register_module("conv", torch::nn::Conv1d(torch::nn::Conv1dOptions(width, width, 4).groups(width)));
    }
    auto [module, mix] = mixer.make();
    register_module("mixer", module);
    mix_ = std::move(mix);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    auto y = norm1_(x);
    if (conv_) y = conv_(torch::constant_pad_nd(y.transpose(1, 2), {3, 0})).transpose(1, 2);
    const auto mixed = x + mix_(y);
    return mixed + down_(torch::gelu(up_(norm2_(mixed))));
  }

 private:
  static torch::nn::LayerNorm norm() { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})); }

  torch::nn::Conv1d conv_{nullptr};
  torch::nn::LayerNorm norm1_, norm2_;
  torch::nn::Linear up_, down_;
  std::function<torch::Tensor(const torch::Tensor&)> mix_;
};
TORCH_MODULE(Layer);

class RecallImpl : public torch::nn::Module {
 public:
  explicit RecallImpl(const Mixer& mixer)
      : embedding_(register_module("embedding", torch::nn::Embedding(vocabulary, width))),
        norm_(register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})))),
        head_(register_module("head", torch::nn::Linear(width, vocabulary))) {
    for (int64_t n = 0; n < num_layers; ++n) {
      layers_.push_back(register_module(fmt::format("layer{}", n), Layer(mixer)));
    }
  }

  /// tokens [B, L] -> logits [B, L, vocabulary]
  torch::Tensor forward(const torch::Tensor& tokens) {
    auto x = embedding_(tokens);
    for (auto& layer : layers_) x = layer(x);
    return head_(norm_(x));
  }

  int64_t size() const {
    int64_t total = 0;
    for (const auto& parameter : parameters()) total += parameter.numel();
    return total;
  }

 private:
  torch::nn::Embedding embedding_;
  torch::nn::LayerNorm norm_;
  torch::nn::Linear head_;
  std::vector<Layer> layers_;
};
TORCH_MODULE(Recall);

// ---- training

double accuracy(Recall& model, int64_t pairs) {
  const torch::NoGradGuard no_grad;
  const auto batch = make_batch(64, pairs);
  const auto is_question = batch.targets != -100;
  return (model(batch.tokens).argmax(-1) == batch.targets)
      .masked_select(is_question)
      .to(torch::kDouble)
      .mean()
      .item<double>();
}

/// Trains with a learning rate that rises for a tenth of the steps and then decays to 0.
void train(Recall& model, const Options& options) {
  constexpr double peak_rate = 3e-3;
  torch::optim::AdamW optimizer(model->parameters(),
                                torch::optim::AdamWOptions(peak_rate).weight_decay(0.01));
  const int64_t steps_per_round = std::max<int64_t>(1, options.steps / 20);
  const int64_t rounds = std::max<int64_t>(1, options.steps / steps_per_round);
  const Progress progress(rounds, steps_per_round * options.batch, "sequences");
  double loss_sum = 0;
  for (int64_t step = 0; step < rounds * steps_per_round; ++step) {
    const double part = static_cast<double>(step) / static_cast<double>(rounds * steps_per_round);
    for (auto& group : optimizer.param_groups()) {
      group.options().set_lr(peak_rate * std::min(10 * part + 0.01, 1 - part));
    }
    const auto batch = make_batch(options.batch, max_trained_pairs >> (step % 3));
    const auto loss = torch::cross_entropy_loss(model(batch.tokens).flatten(0, 1), batch.targets.flatten());
    optimizer.zero_grad();
    loss.backward();
    torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0);
    optimizer.step();
    loss_sum += loss.item<double>();
    if ((step + 1) % steps_per_round == 0) {
      progress.show((step + 1) / steps_per_round, loss_sum / static_cast<double>(steps_per_round),
                    accuracy(model, max_trained_pairs));
      loss_sum = 0;
    }
  }
}

// ---- time and memory

/// Returns a field of /proc/self/status in MB; 0 if there is none.
double memory_status(const std::string& name) {
  std::ifstream stream("/proc/self/status");
  std::string word;
  double kilobytes = 0;
  while (stream >> word) {
    if (word == name + ":" && stream >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  return 0;
}

struct Cost {
  double milliseconds, megabytes;
};

/// Measures the time and peak memory of a training step of one mixer on one sequence.
Cost measure_step(const Mixer& mixer, int64_t length) {
  const auto [module, mix] = mixer.make();
  const auto step = [&, mix = mix](int64_t tokens) {
    mix(torch::randn({1, tokens, width}, torch::requires_grad())).sum().backward();
  };
  step(256);  // fills the caches of allocators and kernels
  const double before = memory_status("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;  // resets VmHWM, the peak
  const auto start = std::chrono::steady_clock::now();
  step(length);
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  return {elapsed.count(), std::max(memory_status("VmHWM") - before, 0.1)};
}

// ---- results

struct Results {
  std::vector<attend::ChartSeries> accuracies, times, memories;
};

void train_and_test(const Mixer& mixer, const Options& options, Results& results) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  Recall model(mixer);
  fmt::print("\n{}: {} parameters\n", mixer.name, model->size());
  train(model, options);
  attend::ChartSeries line{mixer.name, {}};
  for (const auto pairs : tested_pairs) {
    const double recalled = accuracy(model, pairs);
    fmt::print("  {:2} pairs, {:3} tokens: {:5.1f} % recalled\n", pairs, 4 * pairs, 100 * recalled);
    line.points.emplace_back(4 * pairs, recalled);
  }
  results.accuracies.push_back(line);
}

void measure(const Options& options, Results& results) {
  fmt::print("\none training step of a mixer on one sequence:\n{:>8}", "tokens");
  for (const auto& mixer : mixers()) {
    fmt::print("{:>24}", mixer.name);
    results.times.push_back({mixer.name, {}});
    results.memories.push_back({mixer.name, {}});
  }
  for (int64_t length = 256;; length = std::min(4 * length, options.longest)) {
    fmt::print("\n{:8}", length);
    for (size_t n = 0; n < mixers().size(); ++n) {
      const auto cost = measure_step(mixers()[n], length);
      fmt::print("{:>12.1f} ms{:>6.0f} MB", cost.milliseconds, cost.megabytes);
      std::fflush(stdout);
      results.times[n].points.emplace_back(length, cost.milliseconds);
      results.memories[n].points.emplace_back(length, cost.megabytes);
    }
    if (length == options.longest) break;
  }
  fmt::print("\n");
}

void claim(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(fmt::format("expected that {}, which is not the case", what));
}

/// Checks the claims of the example if the run was long enough for them.
void check(const Results& results, const Options& options) {
  if (options.steps >= Options().steps) {
    for (const auto& line : results.accuracies) {
      claim(line.points.front().second >= 0.9, fmt::format("{} recalls 90 % of 4 pairs", line.name));
    }
  }
  if (options.longest >= Options().longest) {
    const auto last = [](const attend::ChartSeries& line) { return line.points.back().second; };
    const auto& softmax = results.times.front();
    for (const auto& line : results.times) {
      const bool is_faster = &line == &softmax || last(line) < last(softmax);
      claim(is_faster, fmt::format("{} is faster than softmax on the longest sequence", line.name));
    }
  }
}

/// Returns a chart over the number of tokens, with a tick at each measured length.
attend::LineChart chart_of(const std::string& title, const std::vector<attend::ChartSeries>& series,
                           const attend::ChartAxis& y) {
  std::vector<double> lengths;
  for (const auto& point : series.front().points) lengths.push_back(point.first);
  return {.title = title,
          .series = series,
          .x = {.label = "tokens", .scale = attend::AxisScale::logarithmic, .ticks = lengths},
          .y = y,
          .width = 300,
          .height = 260};
}

void write_charts(const Results& results, const std::string& path) {
  using attend::AxisScale;
  std::ofstream file(path);
  file << attend::line_charts_svg(
              {chart_of("Recall", results.accuracies,
                        {.label = "fraction of values recalled", .minimum = 0, .maximum = 1}),
               chart_of("Time of a training step", results.times,
                        {.label = "milliseconds", .scale = AxisScale::logarithmic}),
               chart_of("Memory of a training step", results.memories,
                        {.label = "megabytes", .scale = AxisScale::logarithmic})})
       << std::flush;
  if (!file) throw std::runtime_error(fmt::format("can't write {}", path));
}

void run(const Options& options) {
  Results results;
  for (const auto& mixer : mixers()) train_and_test(mixer, options, results);
  measure(options, results);
  write_charts(results, options.output);
  fmt::print("\nwrote {}\n", options.output);
  check(results, options);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CommandLine command(
      "long_range",
      "Compares softmax attention, linear attention, retention and gated delta networks: recall, "
      "time and memory.");
  command.add("--steps", options.steps, 1, 1000000, "Training steps per mixer");
  command.add("--batch", options.batch, 1, 4096, "Sequences per training step");
  command.add("--longest", options.longest, 256, 1 << 20, "Length of the longest sequence to time");
  command.add("--seed", options.seed, 0, 1 << 30, "Seed of the parameters and the sequences");
  command.add("--output", options.output,
              "The SVG file to write (default: long_range.svg in the folder for temporary files)");
  return command.run(argc, argv, [&] {
    if (options.output.empty()) {
      options.output = (std::filesystem::temp_directory_path() / "long_range.svg").string();
    }
    run(options);
  });
}
