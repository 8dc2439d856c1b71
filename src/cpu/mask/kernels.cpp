// This file is compiled once for each instruction set; ATTEND_KERNELS is the name of the function that
// returns the kernels.

#include "cpu/mask/kernels.h"

namespace attend::cpu {
namespace {

inline int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

inline void set(uint8_t* row, int64_t begin, int64_t end, uint8_t value) {
  for (int64_t i = begin; i < end; ++i) row[i] = value;
}

void fill_band(const Tile& tile, int64_t low, int64_t high, uint8_t* allowed, int64_t stride) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    // `key` is the position of the tile's key j relative to the tile's first query, so the queries key - high
    // ... key - low of the tile may attend to it.
    const int64_t key = tile.key + j - tile.query;
    const int64_t begin = clamp(key - high, 0, tile.queries);
    const int64_t end = clamp(key - low + 1, begin, tile.queries);
    uint8_t* row = allowed + j * stride;
    set(row, 0, begin, 0);
    set(row, begin, end, 1);
    set(row, end, tile.queries, 0);
  }
}

void fill_length(const Tile& tile, int64_t length, uint8_t* allowed, int64_t stride) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    set(allowed + j * stride, 0, tile.queries, tile.key + j < length ? 1 : 0);
  }
}

struct IdRange {
  int64_t min, max;
};

/// Returns the smallest and the largest of `count` >= 1 ids.
inline IdRange id_range(const int64_t* ids, int64_t count) {
  IdRange range{ids[0], ids[0]};
  for (int64_t n = 1; n < count; ++n) {
    range.min = ids[n] < range.min ? ids[n] : range.min;
    range.max = ids[n] > range.max ? ids[n] : range.max;
  }
  return range;
}

TileState document_state(const Tile& tile, const int64_t* ids, int64_t offset) {
  const int64_t position = tile.query + offset;
  if (position < 0) return TileState::partial;
  const auto queries = id_range(ids + position, tile.queries), keys = id_range(ids + tile.key, tile.keys);
  if (queries.max < keys.min || keys.max < queries.min) return TileState::empty;
  const bool is_one_document = queries.min == queries.max && keys.min == keys.max && queries.min == keys.min;
  return is_one_document ? TileState::full : TileState::partial;
}

void fill_documents(const Tile& tile, const int64_t* ids, int64_t offset, uint8_t* allowed, int64_t stride) {
  const int64_t position = tile.query + offset;
  const int64_t without_position = clamp(-position, 0, tile.queries);
  for (int64_t j = 0; j < tile.keys; ++j) {
    const int64_t id = ids[tile.key + j];
    uint8_t* row = allowed + j * stride;
    set(row, 0, without_position, 0);
    for (int64_t i = without_position; i < tile.queries; ++i) row[i] = ids[position + i] == id ? 1 : 0;
  }
}

/// Tracks whether any, and whether all, of the elements added so far are true.
struct Truth {
  uint8_t any = 0, all = 1;

  void add(uint8_t element) {
    any = static_cast<uint8_t>(any | (element != 0));
    all = static_cast<uint8_t>(all & (element != 0));
  }
  bool is_partial() const { return any != 0 && all == 0; }
  TileState state() const {
    return any == 0 ? TileState::empty : all != 0 ? TileState::full : TileState::partial;
  }
};

typedef uint8_t Bytes __attribute__((vector_size(16)));
constexpr int64_t kBytes = sizeof(Bytes);

inline Bytes load_bytes(const uint8_t* from) {
  Bytes bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return bytes;
}

inline bool any_bit(const Bytes& bytes) {
  uint64_t words[2];
  __builtin_memcpy(words, &bytes, sizeof(bytes));
  return (words[0] | words[1]) != 0;
}

/// Adds the elements of rows whose keys are contiguous in memory. The vectors of several rows are combined
/// before they are tested.
void add_rows(const DenseTile& dense, int64_t query, int64_t query_end, int64_t keys, Truth& truth) {
  Bytes any = {}, zeros = {};
  for (int64_t i = query; i < query_end; ++i) {
    const uint8_t* row = dense.allowed + i * dense.query_stride;
    int64_t j = 0;
    for (; j + kBytes <= keys; j += kBytes) {
      const auto bytes = load_bytes(row + j);
      any |= bytes;
      zeros |= (Bytes)(bytes == 0);
    }
    for (; j < keys; ++j) truth.add(row[j]);
  }
  if (any_bit(any)) truth.any = 1;
  if (any_bit(zeros)) truth.all = 0;
}

TileState dense_state(const Tile& tile, const DenseTile& dense) {
  constexpr int64_t kRows = 8;
  Truth truth;
  for (int64_t i = 0; i < tile.queries && !truth.is_partial(); i += kRows) {
    const int64_t end = clamp(i + kRows, 0, tile.queries);
    if (dense.key_stride == 1) {
      add_rows(dense, i, end, tile.keys, truth);
      continue;
    }
    for (int64_t query = i; query < end; ++query) {
      const uint8_t* row = dense.allowed + query * dense.query_stride;
      for (int64_t j = 0; j < tile.keys; ++j) truth.add(row[j * dense.key_stride]);
    }
  }
  return truth.state();
}

/// Transposes a square of 16 x 16 elements whose keys are contiguous in memory. In each of four rounds, rows
/// n and n + 8 are interleaved.
void fill_square(const uint8_t* from, int64_t query_stride, uint8_t* allowed, int64_t stride) {
  Bytes rows[kBytes], next[kBytes];
  for (int64_t i = 0; i < kBytes; ++i) rows[i] = (Bytes)(load_bytes(from + i * query_stride) != 0) & 1;
  for (int step = 0; step < 4; ++step) {
    for (int64_t n = 0; n < kBytes / 2; ++n) {
      const Bytes first = rows[n], second = rows[n + kBytes / 2];
      next[2 * n] =
          __builtin_shufflevector(first, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * n + 1] = __builtin_shufflevector(first, second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                                14, 30, 15, 31);
    }
    for (int64_t n = 0; n < kBytes; ++n) rows[n] = next[n];
  }
  for (int64_t j = 0; j < kBytes; ++j) __builtin_memcpy(allowed + j * stride, &rows[j], sizeof(Bytes));
}

/// Transposes in square blocks, so that the cache lines of both matrices are reused: neighbours in one matrix
/// are far apart in the other.
void fill_dense(const Tile& tile, const DenseTile& dense, uint8_t* allowed, int64_t stride) {
  for (int64_t key = 0; key < tile.keys; key += kBytes) {
    const int64_t key_end = clamp(key + kBytes, 0, tile.keys);
    for (int64_t query = 0; query < tile.queries; query += kBytes) {
      const int64_t query_end = clamp(query + kBytes, 0, tile.queries);
      const uint8_t* from = dense.allowed + query * dense.query_stride + key * dense.key_stride;
      uint8_t* to = allowed + key * stride + query;
      if (dense.key_stride == 1 && key_end - key == kBytes && query_end - query == kBytes) {
        fill_square(from, dense.query_stride, to, stride);
        continue;
      }
      for (int64_t i = 0; i < query_end - query; ++i) {
        const uint8_t* row = from + i * dense.query_stride;
        for (int64_t j = 0; j < key_end - key; ++j)
          to[j * stride + i] = row[j * dense.key_stride] != 0 ? 1 : 0;
      }
    }
  }
}

TileState state(const uint8_t* allowed, int64_t count) {
  Truth truth;
  for (int64_t n = 0; n < count; ++n) truth.add(allowed[n]);
  return truth.state();
}

void intersect(const Tile& tile, const uint8_t* other, int64_t other_stride, uint8_t* allowed,
               int64_t stride) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    uint8_t* row = allowed + j * stride;
    const uint8_t* other_row = other + j * other_stride;
    for (int64_t i = 0; i < tile.queries; ++i) row[i] = static_cast<uint8_t>(row[i] & other_row[i]);
  }
}

void negate(const Tile& tile, uint8_t* allowed, int64_t stride) {
  for (int64_t j = 0; j < tile.keys; ++j) {
    uint8_t* row = allowed + j * stride;
    for (int64_t i = 0; i < tile.queries; ++i) row[i] = static_cast<uint8_t>(row[i] ^ 1);
  }
}

}  // namespace

MaskKernels ATTEND_KERNELS();
MaskKernels ATTEND_KERNELS() {
  return {.fill_band = fill_band,
          .fill_length = fill_length,
          .document_state = document_state,
          .fill_documents = fill_documents,
          .dense_state = dense_state,
          .fill_dense = fill_dense,
          .state = state,
          .intersect = intersect,
          .negate = negate};
}

}  // namespace attend::cpu
