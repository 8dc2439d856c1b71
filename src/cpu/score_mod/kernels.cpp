// Compiled once for each instruction set; ATTEND_KERNELS is its name for the table.

#include "cpu/score_mod/kernels.h"

#include "cpu/score_mod/transposed_sum.h"
#include "cpu/simd/scratch.h"
#include "cpu/simd/tanh.h"

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

/// Calls action(i, j, lanes) for each vector of queries i ... of the tile, the last of a row with fewer
/// lanes.
template <typename T, typename Action>
inline void for_each_vector(const Tile& tile, Action action) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    for (int64_t i = 0; i < tile.queries; i += kLanes<T>) action(i, j, smaller(kLanes<T>, tile.queries - i));
  }
}

template <typename T>
void softcap(const Tile& tile, T cap, T* scores, int64_t stride) {
  for_each_vector<T>(tile, [=](int64_t i, int64_t j, int64_t lanes) {
    const int64_t place = j * stride + i;
    store_lanes<T>(scores + place, cap * tanh<T>(load_lanes(scores + place, lanes) / cap), lanes);
  });
}

template <typename T>
void softcap_backward(const Tile& tile, T cap, const T* scores, T* gradients, int64_t stride) {
  for_each_vector<T>(tile, [=](int64_t i, int64_t j, int64_t lanes) {
    const int64_t place = j * stride + i;
    const auto t = tanh<T>(load_lanes(scores + place, lanes) / cap);
    store_lanes<T>(gradients + place, load_lanes(gradients + place, lanes) * (1 - t * t), lanes);
  });
}

/// |first|, |first + 1|, ...
template <typename T>
inline Vec<T> distances(int64_t first) {
  Vec<T> signed_distances;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) signed_distances[lane] = static_cast<T>(lane);
  signed_distances += static_cast<T>(first);
  return signed_distances < 0 ? -signed_distances : signed_distances;
}

template <typename T>
void alibi(const Tile& tile, T slope, int64_t distance, T* scores, int64_t stride) {
  for_each_vector<T>(tile, [=](int64_t i, int64_t j, int64_t lanes) {
    T* place = scores + j * stride + i;
    store_lanes<T>(place, load_lanes(place, lanes) - slope * distances<T>(distance + i - j), lanes);
  });
}

/// Sums of a few products in T, then of those in float64.
template <typename T>
double alibi_backward(const Tile& tile, int64_t distance, const T* gradients, int64_t stride) {
  constexpr int64_t kFew = 16;
  double total = 0;
  for (int64_t i = 0; i < tile.queries; i += kLanes<T>) {
    const int64_t lanes = smaller(kLanes<T>, tile.queries - i);
    for (int64_t begin = 0; begin < tile.keys; begin += kFew) {
      Vec<T> of_few = {};
      for (int64_t j = begin; j < smaller(begin + kFew, tile.keys); ++j) {
        of_few += load_lanes(gradients + j * stride + i, lanes) * distances<T>(distance + i - j);
      }
      for (int64_t lane = 0; lane < lanes; ++lane) total += static_cast<double>(of_few[lane]);
    }
  }
  return total;
}

template <typename T>
ScoreKernels<T> table() {
  return {softcap<T>,
          softcap_backward<T>,
          alibi<T>,
          alibi_backward<T>,
          add_transposed<T>,
          sum_transposed<T, true>,
          sum_transposed<T, false>};
}

}  // namespace

ScoreTables ATTEND_KERNELS();
ScoreTables ATTEND_KERNELS() { return {table<float>(), table<double>()}; }

}  // namespace attend::cpu
