#include <ATen/TensorOperators.h>
#include <ATen/ops/tanh.h>
#include <attend/score_mod.h>

#include <limits>

#include "core/score_mod_node.h"
#include "cpu/score_mod/kernels.h"

namespace attend {
namespace {

using cpu::Tile;

class BoundSoftcap final : public BoundScoreMod {
 public:
  explicit BoundSoftcap(double cap) : cap_(cap) {}

  bool reads_scores() const override { return true; }

  void forward(const Tile& tile, float* scores, int64_t stride) const override {
    cpu::score_kernels<float>().softcap(tile, static_cast<float>(cap_), scores, stride);
  }
  void forward(const Tile& tile, double* scores, int64_t stride) const override {
    cpu::score_kernels<double>().softcap(tile, cap_, scores, stride);
  }
  void backward(const Tile& tile, int64_t, const float* scores, float* gradients,
                int64_t stride) const override {
    cpu::score_kernels<float>().softcap_backward(tile, static_cast<float>(cap_), scores, gradients, stride);
  }
  void backward(const Tile& tile, int64_t, const double* scores, double* gradients,
                int64_t stride) const override {
    cpu::score_kernels<double>().softcap_backward(tile, cap_, scores, gradients, stride);
  }

 private:
  double cap_;
};

class Softcap final : public ScoreModNode {
 public:
  explicit Softcap(double cap) : cap_(cap) {}

  void check(const char*, const ScoreShape&, const at::Tensor&) const override {}

  at::Tensor apply(const at::Tensor& scores, const ScoreShape&, int64_t) const override {
    return at::tanh(scores / cap_) * cap_;
  }

  std::unique_ptr<BoundScoreMod> bind(const ScoreShape&, int64_t, at::ScalarType) const override {
    return std::make_unique<BoundSoftcap>(cap_);
  }

 private:
  double cap_;
};

}  // namespace

ScoreMod softcap(double cap) {
  using Float = std::numeric_limits<float>;
  if (!(cap >= Float::min() && cap <= Float::max())) {
    checks::fail("softcap", "cap", "a positive number in the range of float32", c10::str(cap));
  }
  return ScoreMod(std::make_shared<Softcap>(cap));
}

}  // namespace attend
