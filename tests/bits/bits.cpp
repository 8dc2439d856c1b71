// Hashes the bits of outputs and gradients over random settings of attention and linear attention, so that
// two builds of the library, two numbers of threads or two runs can be compared bit for bit:
//
//     ATEN_CPU_CAPABILITY=avx2 bits --settings 3000 --threads 2 >new && diff old new
//
// Each line has a setting and its hash; the last line has the hash of all.
#include <ATen/Parallel.h>
#include <attend/attention.h>
#include <attend/linear_attention.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <random>

namespace {

using attend::AttentionParams;
using attend::LinearAttentionParams;
using torch::Tensor;

/// FNV-1a, 64 bits.
class Hash {
 public:
  void add(const Tensor& tensor) {
    if (!tensor.defined()) return add_byte(0x5a);
    const auto contiguous = tensor.detach().contiguous();
    const auto* bytes = static_cast<const uint8_t*>(contiguous.const_data_ptr());
    for (size_t n = 0; n < contiguous.nbytes(); ++n) add_byte(bytes[n]);
  }
  uint64_t value() const { return value_; }

 private:
  void add_byte(uint8_t byte) { value_ = (value_ ^ byte) * 0x100000001b3; }

  uint64_t value_ = 0xcbf29ce484222325;
};

/// Draws elements of lists by a generator that gives the same sequence in every build.
class Choice {
 public:
  explicit Choice(uint64_t seed) : engine_(seed) {}

  int64_t below(int64_t bound) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(bound)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  template <typename T>
  T of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int64_t>(values.size()))];
  }

 private:
  std::mt19937_64 engine_;
};

struct Sizes {
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;

  static Sizes draw(Choice& choice) {
    const int64_t kv_heads = choice.of<int64_t>({1, 1, 2, 3});
    return {choice.of<int64_t>({1, 1, 2}),
            kv_heads * choice.of<int64_t>({1, 1, 2, 4}),
            kv_heads,
            choice.of<int64_t>({1, 7, 63, 64, 65, 97, 200}),
            choice.of<int64_t>({1, 7, 63, 64, 65, 97, 300}),
            choice.of<int64_t>({1, 8, 59, 64, 111, 128}),
            choice.of<int64_t>({1, 8, 59, 64, 128})};
  }
  std::string name() const {
    return fmt::format("B{} H{}/{} {}x{} D{}/{}", batch, heads, kv_heads, queries, keys, d, d_v);
  }
};

/// Returns a random leaf, sometimes with non-contiguous strides.
Tensor leaf(Choice& choice, std::vector<int64_t> sizes, torch::ScalarType dtype) {
  auto tensor = torch::randn(sizes);
  if (sizes.size() == 4 && choice.one_in(3)) tensor = tensor.transpose(1, 2).contiguous().transpose(1, 2);
  return tensor.to(dtype).requires_grad_();
}

attend::Mask draw_mask(Choice& choice, const Sizes& s, std::string& name) {
  const auto lengths = [&] { return torch::randint(0, s.keys + 1, {s.batch}); };
  switch (choice.below(10)) {
    case 0:
      return name += " causal", attend::causal();
    case 1:
      return name += " top_left", attend::causal(attend::Corner::top_left);
    case 2:
      return name += " window", attend::window(20, 5);
    case 3:
      return name += " causal&lengths", attend::causal() & attend::key_lengths(lengths());
    case 4:
      return name += " prefix|causal", attend::prefix(lengths()) | attend::causal();
    case 5:
      return name += " documents", attend::documents(torch::arange(s.keys).floor_divide(37));
    case 6:
      return name += " dense", attend::dense(torch::rand({s.batch, 1, s.queries, s.keys}) < 0.7);
    case 7:
      return name += " ~window", ~attend::window(10, 10);
    case 8:
      return name += " lambda",
             attend::mask_mod([](attend::Position at) { return (at.key + 2 * at.query) % 5 != 0; });
    default:
      return {};
  }
}

attend::ScoreMod draw_score_mod(Choice& choice, const Sizes& s, torch::ScalarType dtype, std::string& name,
                                std::vector<Tensor>& leaves) {
  const auto add = [&](std::vector<int64_t> sizes) {
    leaves.push_back(torch::randn(sizes).to(choice.one_in(2) ? torch::kFloat : dtype).requires_grad_());
    return leaves.back();
  };
  // Either the dtype of the query or float32.
  const auto alibi = [&] { return attend::alibi(add({s.heads})); };
  switch (choice.below(9)) {
    case 0:
      return name += " alibi", alibi();
    case 1:
      return name += " softcap", attend::softcap(3.0);
    case 2:
      return name += " bias", attend::bias(add({s.batch, s.heads, s.queries, s.keys}));
    case 3:
      return name += " bias of heads", attend::bias(add({s.heads, s.queries, s.keys}).unsqueeze(0));
    case 4:
      return name += " bias of queries", attend::bias(add({1, s.heads, s.queries, 1}));
    case 5:
      return name += " bias of keys", attend::bias(add({s.batch, 1, 1, s.keys}));
    case 6:
      return name += " relative", attend::relative_bias(add({32, s.heads}));
    case 7:
      return name += " alibi,softcap,lambda",
             alibi().then(attend::softcap(5.0)).then(attend::score_mod([](auto score, attend::Position at) {
               return score * score * 0.1 - 0.01 * std::abs(at.query - at.key);
             }));
    default:
      return {};
  }
}

torch::ScalarType draw_dtype(Choice& choice) {
  return choice.of({torch::kFloat, torch::kFloat, torch::kDouble, torch::kBFloat16, torch::kHalf});
}

uint64_t hash_of(const std::vector<Tensor>& results, const std::vector<Tensor>& leaves) {
  Hash hash;
  std::vector<Tensor> outputs, grads;
  for (const auto& result : results) {
    hash.add(result);
    if (!result.defined() || !result.requires_grad()) continue;
    outputs.push_back(result);
    // A fully masked row has logsumexp -inf; its gradient is 0, whatever the gradient of the logsumexp is.
    grads.push_back(torch::randn(result.sizes()).to(result.scalar_type()));
  }
  for (const auto& gradient :
       torch::autograd::grad(outputs, leaves, grads, {}, false, /*allow_unused=*/true)) {
    hash.add(gradient);
  }
  return hash.value();
}

uint64_t attention(Choice& choice, std::string& name) {
  const auto s = Sizes::draw(choice);
  const auto dtype = draw_dtype(choice);
  name = fmt::format("attention {} {}", c10::toString(dtype), s.name());
  std::vector<Tensor> leaves = {leaf(choice, {s.batch, s.heads, s.queries, s.d}, dtype),
                                leaf(choice, {s.batch, s.kv_heads, s.keys, s.d}, dtype),
                                leaf(choice, {s.batch, s.kv_heads, s.keys, s.d_v}, dtype)};
  const auto query = leaves[0], key = leaves[1], value = leaves[2];
  AttentionParams params;
  params.mask = draw_mask(choice, s, name);
  params.score_mod = draw_score_mod(choice, s, dtype, name, leaves);
  if (choice.one_in(4)) params.dropout_p = 0.3, name += " dropout";
  params.backend = choice.one_in(5) ? attend::Backend::reference : attend::Backend::fused;
  if (params.backend == attend::Backend::reference) name += " reference";
  const auto kind = choice.below(6);
  if (kind == 0) params.weighting = attend::Weighting::sigmoid, name += " sigmoid";
  if (kind == 1) params.weighting = attend::Weighting::relu, name += " relu";
  if (kind == 2) {
    leaves.push_back(torch::randn({s.heads}).requires_grad_());
    if (dtype == torch::kDouble) leaves.back() = leaves.back().detach().to(dtype).requires_grad_();
    params.sinks = leaves.back(), name += " sinks";
  }
  if (kind < 3) return hash_of({attend::attention(query, key, value, params)}, leaves);
  const auto result = attend::attention_with_lse(query, key, value, params);
  return hash_of({result.output, result.logsumexp}, leaves);
}

uint64_t linear_attention(Choice& choice, std::string& name) {
  auto s = Sizes::draw(choice);
  if (choice.one_in(3)) s.kv_heads = s.heads = 8;
  const auto dtype = draw_dtype(choice);
  const auto wide = dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
  name = fmt::format("linear_attention {} {}", c10::toString(dtype), s.name());
  std::vector<Tensor> leaves = {leaf(choice, {s.batch, s.heads, s.queries, s.d}, dtype),
                                leaf(choice, {s.batch, s.kv_heads, s.keys, s.d}, dtype),
                                leaf(choice, {s.batch, s.kv_heads, s.keys, s.d_v}, dtype)};
  const auto query = leaves[0], key = leaves[1] * 0.1, value = leaves[2];
  const auto add = [&](const Tensor& tensor) {
    leaves.push_back(tensor.to(wide).requires_grad_());
    return leaves.back();
  };
  LinearAttentionParams params;
  params.feature_map = choice.of({attend::FeatureMap::elu_plus_one, attend::FeatureMap::relu,
                                  attend::FeatureMap::identity, attend::FeatureMap::random_features});
  name += fmt::format(" map{}", static_cast<int>(params.feature_map));
  const bool is_random = params.feature_map == attend::FeatureMap::random_features;
  int64_t features = s.d;
  if (is_random) features = 16, params.projection = torch::randn({features, s.d}).to(dtype);
  params.normalize = is_random || choice.one_in(2);
  params.is_causal = !choice.one_in(3);
  name += fmt::format("{}{}", params.normalize ? " normalize" : "", params.is_causal ? " causal" : "");
  const auto decay = choice.below(4);
  const auto log_decay = [&](std::vector<int64_t> sizes) { return add(-torch::rand(sizes) * 0.5); };
  if (decay == 1) params.log_decay = log_decay({s.heads}), name += " decay of heads";
  if (decay == 2) params.log_decay = log_decay({s.batch, s.heads, s.keys}), name += " decay of steps";
  if (decay == 3 && !is_random) {
    params.log_decay = log_decay({s.batch, s.heads, s.keys, s.d}), name += " decay of channels";
  }
  if (!is_random && choice.one_in(3)) {
    params.beta = add(torch::rand({s.batch, s.heads, s.keys})), name += " delta";
  }
  if (choice.one_in(2)) {
    params.initial_state = add(torch::rand({s.batch, s.heads, features, s.d_v + (params.normalize ? 1 : 0)}));
    name += " state";
  }
  if (choice.one_in(3)) params.key_lengths = torch::randint(0, s.keys + 1, {s.batch}), name += " lengths";
  const auto result = attend::linear_attention(query, key, value, params);
  return hash_of({result.output, result.final_state}, leaves);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Hashes outputs and gradients over random settings, to compare builds bit for bit");
  int64_t settings = 3000, threads = 1, every = 1;
  app.add_option("--settings", settings, "Settings of each of attention and linear attention")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--every", every, "Compute only one setting in so many")->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "Threads to compute with")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(static_cast<int>(threads));
  uint64_t total = 0;
  for (const auto family : {attention, linear_attention}) {
    for (int64_t n = 0; n < settings; n += every) {
      Choice choice(static_cast<uint64_t>(n));
      torch::manual_seed(static_cast<uint64_t>(n));
      std::string name;
      const uint64_t hash = family(choice, name);
      total = total * 31 + hash;
      fmt::print("{:016x} {} {}\n", hash, n, name);
    }
  }
  fmt::print("{:016x} total\n", total);
}
