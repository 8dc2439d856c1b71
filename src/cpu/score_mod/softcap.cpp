#include "cpu/score_mod/kernels.h"
#include "cpu/score_mod/make_tiles.h"

namespace attend::cpu {
namespace {

/// Computes cap tanh(score / cap).
class SoftcapTiles final : public ScoreTilesBase<SoftcapTiles> {
 public:
  explicit SoftcapTiles(double cap) : cap_(cap) {}

  bool reads_scores() const override { return true; }

  template <typename T>
  void modify(const Tile& tile, T* scores, int64_t stride) const {
    score_kernels<T>().softcap(tile, static_cast<T>(cap_), scores, stride);
  }

  template <typename T>
  void differentiate(const Tile& tile, int64_t, const T* scores, T* gradients, int64_t stride) const {
    score_kernels<T>().softcap_backward(tile, static_cast<T>(cap_), scores, gradients, stride);
  }

 private:
  double cap_;
};

}  // namespace

std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Softcap& softcap, const ScoreShape&,
                                                     int64_t, at::ScalarType) {
  return std::make_unique<SoftcapTiles>(softcap.cap);
}

}  // namespace attend::cpu
