// Trains a small attention model to read handwritten digits as sequences of rows, and prints the attention
// weights of one digit.
#include <attend/attend.h>
#include <fmt/format.h>
#include <torch/torch.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "command_line.h"
#include "digits_data.h"
#include "progress.h"

namespace {

constexpr int64_t default_epochs = 60;
constexpr double required_accuracy = 0.95;

/// A classifier of images as sequences of rows of pixels: each row is embedded, a learned position is added,
/// the rows attend to each other, and the maximum of each feature over the rows is classified.
class DigitReaderImpl : public torch::nn::Module {
 public:
  explicit DigitReaderImpl(int64_t width = 64)
      : embedding_(register_module("embedding", torch::nn::Linear(digit_side, width))),
        position_(register_parameter("position", torch::randn({digit_side, width}) * 0.1)),
        attention_(register_module("attention", attend::nn::Attention(width, width, width))),
        hidden_(register_module("hidden", torch::nn::Linear(width, width))),
        classifier_(register_module("classifier", torch::nn::Linear(width, digit_classes))) {}

  /// images [N, 8, 8] -> logits [N, 10].
  torch::Tensor forward(const torch::Tensor& images) {
    const auto rows = embed(images);
    const auto attended = rows + attention_(rows, rows, rows);
    return classifier_(torch::relu(hidden_(attended)).amax(/*dim=*/1));
  }

  /// images [N, 8, 8] -> the attention weight of row j for row i, [N, 8, 8].
  torch::Tensor weights(const torch::Tensor& images) {
    const auto rows = embed(images);
    return attention_->weights(rows, rows);
  }

 private:
  torch::Tensor embed(const torch::Tensor& images) { return torch::relu(embedding_(images) + position_); }

  torch::nn::Linear embedding_;
  torch::Tensor position_;
  attend::nn::Attention attention_;
  torch::nn::Linear hidden_;
  torch::nn::Linear classifier_;
};
TORCH_MODULE(DigitReader);

struct Options {
  int64_t seed = 0;
  std::optional<int64_t> threads;
  std::optional<int64_t> epochs;
  std::string save;
  std::string data = ATTEND_EXAMPLES_DATA "/digits.csv";
};

struct Split {
  Digits training;
  Digits held_out;
};

/// Holds out a random fifth of the digits.
Split split(const Digits& digits) {
  const auto order = torch::randperm(digits.size(), torch::kInt64);
  const auto held_out = digits.size() / 5;
  return {.training = digits.at(order.slice(0, held_out)),
          .held_out = digits.at(order.slice(0, 0, held_out))};
}

double accuracy(DigitReader& model, const Digits& digits) {
  const torch::NoGradGuard no_grad;
  return (model(digits.images).argmax(1) == digits.labels).to(torch::kFloat64).mean().item<double>();
}

/// Trains for one pass over the digits in random order, with noise on the pixels against overfitting. Returns
/// the mean loss.
double train_epoch(DigitReader& model, torch::optim::Optimizer& optimizer, const Digits& digits) {
  constexpr int64_t batch_size = 32;
  constexpr double noise = 0.15;
  double loss_sum = 0;
  for (const auto& indices : torch::randperm(digits.size(), torch::kInt64).split(batch_size)) {
    const auto batch = digits.at(indices);
    const auto images = batch.images + noise * torch::randn_like(batch.images);
    const auto loss = torch::cross_entropy_loss(model(images), batch.labels);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    loss_sum += loss.item<double>() * static_cast<double>(batch.size());
  }
  return loss_sum / static_cast<double>(digits.size());
}

/// Trains with a learning rate that decays linearly to 0.
void train(DigitReader& model, const Split& digits, int64_t epochs) {
  constexpr double initial_rate = 3e-3;
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(initial_rate));
  const Progress progress(epochs, digits.training.size(), "digits");
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    const double left = static_cast<double>(epochs - epoch + 1) / static_cast<double>(epochs);
    for (auto& group : optimizer.param_groups()) group.options().set_lr(initial_rate * left);
    const double loss = train_epoch(model, optimizer, digits.training);
    progress.show(epoch, loss, accuracy(model, digits.held_out));
  }
}

/// Saves the model through a stream, because LibTorch's file writer aborts the program if the disk is full.
void save(const DigitReader& model, const std::string& path) {
  std::ostringstream bytes;
  torch::save(model, bytes);
  std::ofstream file(path, std::ios::binary);
  file << bytes.str() << std::flush;
  if (!file) throw std::system_error(errno, std::generic_category(), path);
  fmt::print("saved the model to {}\n", path);
}

/// Loads the saved model into a new one. Throws unless its predictions equal those of `original` bit for bit.
DigitReader load(const std::string& path, DigitReader& original, const Digits& digits) {
  DigitReader model;
  torch::load(model, path);
  const torch::NoGradGuard no_grad;
  if (!torch::equal(model(digits.images), original(digits.images))) {
    throw std::runtime_error(fmt::format("{}: the loaded model makes other predictions", path));
  }
  return model;
}

/// Returns a pixel as text, two columns wide so that it is about as wide as high.
std::string_view shade(double ink) {
  constexpr std::array<std::string_view, 5> shades = {"  ", "░░", "▒▒", "▓▓", "██"};
  return shades[static_cast<size_t>(std::lround(ink * 4))];
}

/// Prints a digit, with the attention weights of each row beside it.
void show_digit(DigitReader& model, const Digits& digits, int64_t index) {
  const torch::NoGradGuard no_grad;
  const auto image = digits.images[index];
  const auto weights = model->weights(image.unsqueeze(0))[0];
  fmt::print("\na held-out digit: true label {}, predicted {}\n", digits.labels[index].item<int64_t>(),
             model(image.unsqueeze(0)).argmax(1).item<int64_t>());
  fmt::print("{:16}  row  attention weights on rows 0 to 7, in %\n{:21}", "", "");
  for (int64_t j = 0; j < digit_side; ++j) fmt::print("{:5}", j);
  for (int64_t i = 0; i < digit_side; ++i) {
    fmt::print("\n");
    for (int64_t j = 0; j < digit_side; ++j) fmt::print("{}", shade(image[i][j].item<double>()));
    fmt::print("  {:3}", i);
    for (int64_t j = 0; j < digit_side; ++j) fmt::print("{:5.0f}", 100 * weights[i][j].item<double>());
  }
  fmt::print("\n");
}

void run(const Options& options) {
  if (options.threads) torch::set_num_threads(static_cast<int>(*options.threads));
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  const auto digits = split(read_digits(options.data));
  fmt::print("{} digits for training, {} held out; seed {}, threads {}\n", digits.training.size(),
             digits.held_out.size(), options.seed, torch::get_num_threads());

  DigitReader model;
  train(model, digits, options.epochs.value_or(default_epochs));

  save(model, options.save);
  auto loaded = load(options.save, model, digits.held_out);
  const double reached = accuracy(loaded, digits.held_out);
  fmt::print("loaded it again: the same predictions, {:.2f} % of the held-out digits correct\n",
             100 * reached);
  show_digit(loaded, digits.held_out, 0);
  if (!options.epochs && reached < required_accuracy) {
    throw std::runtime_error(fmt::format("held-out accuracy: expected at least {:.0f} %, got {:.2f} %",
                                         100 * required_accuracy, 100 * reached));
  }
}

/// Returns what is wrong with a path to save to, so that it is reported before training rather than after it.
std::string check_save(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto folder = fs::absolute(path, ignored).parent_path();
  if (path.empty() || fs::is_directory(path, ignored) || !fs::is_directory(folder, ignored)) {
    return fmt::format("expected a file in a folder that exists, got {:?}", path);
  }
  const auto& written = fs::exists(path, ignored) ? fs::path(path) : folder;
  if (access(written.c_str(), W_OK) != 0) {
    return fmt::format("expected a file that can be written, got {:?}", path);
  }
  return {};
}

/// Returns a path in a new folder, since other users can write to the folder for temporary files.
std::string default_save() {
  auto folder = (std::filesystem::temp_directory_path() / "digits-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::system_error(errno, std::generic_category(), folder);
  return folder + "/digits.pt";
}

void add_options(CommandLine& command, Options& options) {
  command.add("--seed", options.seed, 0, std::numeric_limits<uint32_t>::max(),
              "Seed of the split, the initial parameters, the order and the noise");
  command.add("--threads", options.threads, 1, 1024, "Number of threads (default: LibTorch's choice)");
  command.add(
      "--epochs", options.epochs, 1, 100000,
      fmt::format("Passes over the training digits (default: {}, after which the accuracy must be {:.0f} %)",
                  default_epochs, 100 * required_accuracy));
  command.add("--save", options.save,
              "Where to save the model (default: digits.pt in a new temporary folder)", check_save);
  command.add("--data", options.data, "The digits (default: examples/data/digits.csv)");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CommandLine command("digits", "Trains a small attention model to read handwritten digits.");
  add_options(command, options);
  return command.run(argc, argv, [&] {
    if (options.save.empty()) options.save = default_save();
    run(options);
  });
}
