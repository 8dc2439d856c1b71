// Compiled once for each instruction set; ATTEND_KERNELS is its name for the table.

#include "score_kernels.h"

#include "scratch.h"
#include "tanh.h"
#include "transposed_sum.h"

namespace attend::cpu {
namespace {

/// A whole vector, or the first `lanes` elements of one.
template <typename T>
inline Vec<T> load_lanes(const T* from, int64_t lanes) {
  if (lanes >= kLanes<T>) return load(from);
  Vec<T> some = {};
  for (int64_t lane = 0; lane < lanes; ++lane) some[lane] = from[lane];
  return some;
}

template <typename T>
inline void store_lanes(T* to, Vec<T> value, int64_t lanes) {
  if (lanes >= kLanes<T>) return store(to, value);
  for (int64_t lane = 0; lane < lanes; ++lane) to[lane] = value[lane];
}

/// Calls action(place, lanes) for each vector of the tile, the last of a row with fewer lanes.
template <typename T, typename Action>
inline void for_each_vector(const Tile& tile, int64_t stride, Action action) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    for (int64_t i = 0; i < tile.queries; i += kLanes<T>) {
      action(j * stride + i, smaller(kLanes<T>, tile.queries - i));
    }
  }
}

template <typename T>
void softcap(const Tile& tile, T cap, T* scores, int64_t stride) {
  for_each_vector<T>(tile, stride, [=](int64_t place, int64_t lanes) {
    store_lanes<T>(scores + place, cap * tanh<T>(load_lanes(scores + place, lanes) / cap), lanes);
  });
}

template <typename T>
void softcap_backward(const Tile& tile, T cap, const T* scores, T* gradients, int64_t stride) {
  for_each_vector<T>(tile, stride, [=](int64_t place, int64_t lanes) {
    const auto t = tanh<T>(load_lanes(scores + place, lanes) / cap);
    store_lanes<T>(gradients + place, load_lanes(gradients + place, lanes) * (1 - t * t), lanes);
  });
}

template <typename T>
ScoreKernels<T> table() {
  return {softcap<T>, softcap_backward<T>, add_transposed<T>, sum_transposed<T, true>,
          sum_transposed<T, false>};
}

}  // namespace

ScoreTables ATTEND_KERNELS();
ScoreTables ATTEND_KERNELS() { return {table<float>(), table<double>()}; }

}  // namespace attend::cpu
