// This file is compiled once for each instruction set; ATTEND_KERNELS is the name of the function that
// returns the kernels.

#include "cpu/score_mod/kernels.h"

#include "cpu/score_mod/transposed_sum.h"
#include "cpu/simd/sizes.h"
#include "cpu/simd/tanh.h"

namespace attend::cpu {
namespace {

/// Loads `lanes` elements into a vector; the other lanes are 0.
template <typename T>
inline Vec<T> load_lanes(const T* from, int64_t lanes) {
  if (lanes >= kLanes<T>) return load(from);
  Vec<T> partial = {};
  for (int64_t lane = 0; lane < lanes; ++lane) partial[lane] = from[lane];
  return partial;
}

template <typename T>
inline void store_lanes(T* to, Vec<T> value, int64_t lanes) {
  if (lanes >= kLanes<T>) return store(to, value);
  for (int64_t lane = 0; lane < lanes; ++lane) to[lane] = value[lane];
}

/// Calls action(i, j, lanes) for each key j and each vector of queries [i, i + lanes). The last vector of a
/// key may have fewer lanes than kLanes.
template <typename T, typename Action>
inline void for_each_vector(const Tile& tile, Action action) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    for (int64_t i = 0; i < tile.queries; i += kLanes<T>) action(i, j, smaller(kLanes<T>, tile.queries - i));
  }
}

template <typename T>
void softcap(const Tile& tile, T cap, T* scores, int64_t stride) {
  for_each_vector<T>(tile, [=](int64_t i, int64_t j, int64_t lanes) {
    const int64_t index = j * stride + i;
    store_lanes<T>(scores + index, cap * tanh<T>(load_lanes(scores + index, lanes) / cap), lanes);
  });
}

template <typename T>
void softcap_backward(const Tile& tile, T cap, const T* scores, T* gradients, int64_t stride) {
  for_each_vector<T>(tile, [=](int64_t i, int64_t j, int64_t lanes) {
    const int64_t index = j * stride + i;
    const auto t = tanh<T>(load_lanes(scores + index, lanes) / cap);
    store_lanes<T>(gradients + index, load_lanes(gradients + index, lanes) * (1 - t * t), lanes);
  });
}

/// Returns the vector |first|, |first + 1|, ...
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

/// Sums the products of up to 16 keys in T, and then adds these partial sums in float64.
template <typename T>
double alibi_backward(const Tile& tile, int64_t distance, const T* gradients, int64_t stride) {
  constexpr int64_t kPartKeys = 16;
  double total = 0;
  for (int64_t i = 0; i < tile.queries; i += kLanes<T>) {
    const int64_t lanes = smaller(kLanes<T>, tile.queries - i);
    for (int64_t begin = 0; begin < tile.keys; begin += kPartKeys) {
      Vec<T> partial = {};
      for (int64_t j = begin; j < smaller(begin + kPartKeys, tile.keys); ++j) {
        partial += load_lanes(gradients + j * stride + i, lanes) * distances<T>(distance + i - j);
      }
      for (int64_t lane = 0; lane < lanes; ++lane) total += static_cast<double>(partial[lane]);
    }
  }
  return total;
}

/// Transposes in square blocks, so that the cache lines of both matrices are reused: neighbours in one matrix
/// are far apart in the other.
template <typename T>
void add_strided_bias(const Tile& tile, const T* values, int64_t query_stride, int64_t key_stride, T* scores,
                      int64_t stride) {
  constexpr int64_t kSquare = 16;
  for (int64_t key = 0; key < tile.keys; key += kSquare) {
    const int64_t key_end = smaller(key + kSquare, tile.keys);
    for (int64_t query = 0; query < tile.queries; query += kSquare) {
      for (int64_t i = query; i < smaller(query + kSquare, tile.queries); ++i) {
        for (int64_t j = key; j < key_end; ++j) {
          scores[j * stride + i] += values[i * query_stride + j * key_stride];
        }
      }
    }
  }
}

// The gradients of a tile are summed in long double, and each sum is rounded to float64 once.

template <typename T>
void sum_queries(const Tile& tile, const T* gradients, int64_t stride, double* sums, int64_t key_stride) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    long double sum = 0;
    for (int64_t i = 0; i < tile.queries; ++i) sum += static_cast<long double>(gradients[j * stride + i]);
    sums[j * key_stride] += static_cast<double>(sum);
  }
}

template <typename T>
void sum_keys(const Tile& tile, const T* gradients, int64_t stride, double* sums, int64_t query_stride) {
  long double query_sums[kMaxTileQueries] = {};
  for (int64_t j = 0; j < tile.keys; ++j) {
    for (int64_t i = 0; i < tile.queries; ++i) {
      query_sums[i] += static_cast<long double>(gradients[j * stride + i]);
    }
  }
  for (int64_t i = 0; i < tile.queries; ++i) sums[i * query_stride] += static_cast<double>(query_sums[i]);
}

template <typename T>
void sum_tile(const Tile& tile, const T* gradients, int64_t stride, double* sum) {
  long double total = 0;
  for (int64_t j = 0; j < tile.keys; ++j) {
    long double key_sum = 0;
    for (int64_t i = 0; i < tile.queries; ++i) key_sum += static_cast<long double>(gradients[j * stride + i]);
    total += key_sum;
  }
  *sum += static_cast<double>(total);
}

template <typename T>
void add_by_distance(const Tile& tile, const T* values, T* scores, int64_t stride) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    const T* key_values = values + tile.keys - 1 - j;
    T* row = scores + j * stride;
    for (int64_t i = 0; i < tile.queries; ++i) row[i] += key_values[i];
  }
}

template <typename T>
void sum_by_bucket(const Tile& tile, const T* gradients, int64_t stride, const int64_t* buckets,
                   double* sums) {
  double diagonals[kMaxTileQueries + kMaxTileKeys - 1] = {};
  for (int64_t j = 0; j < tile.keys; ++j) {
    double* key_diagonals = diagonals + tile.keys - 1 - j;
    const T* row = gradients + j * stride;
    for (int64_t i = 0; i < tile.queries; ++i) key_diagonals[i] += static_cast<double>(row[i]);
  }
  for (int64_t n = 0; n < tile.queries + tile.keys - 1; ++n) sums[buckets[n]] += diagonals[n];
}

template <typename T>
ScoreKernels<T> table() {
  return {.softcap = softcap<T>,
          .softcap_backward = softcap_backward<T>,
          .alibi = alibi<T>,
          .alibi_backward = alibi_backward<T>,
          .add_bias = add_transposed<T>,
          .add_strided_bias = add_strided_bias<T>,
          .add_bias_gradients = sum_transposed<T, true>,
          .set_bias_gradients = sum_transposed<T, false>,
          .sum_queries = sum_queries<T>,
          .sum_keys = sum_keys<T>,
          .sum_tile = sum_tile<T>,
          .add_by_distance = add_by_distance<T>,
          .sum_by_bucket = sum_by_bucket<T>};
}

}  // namespace

ScoreTables ATTEND_KERNELS();
ScoreTables ATTEND_KERNELS() { return {.float32 = table<float>(), .float64 = table<double>()}; }

}  // namespace attend::cpu
