#pragma once

namespace attend {

/// Where a score stands, for lambdas on scores and masks. Whole numbers of 32 bits, so that what is computed
/// from them is computed for several scores at once: convert before a product that may exceed 2^31.
struct Position {
  int batch;
  int head;
  int query;  ///< the query's own position among the keys, i + Lk - Lq for query i; negative where Lq > Lk
  int key;
};

namespace detail {

/// The scores of one head that stand in a rectangle; `first` is its first query and key.
struct PositionTile {
  Position first;
  int queries, keys;
};

/// Sets results[n] = evaluate(n, at), for `count` queries from `first` on. Groups of a fixed size go to an
/// array that nothing else refers to first: the compiler makes vectors of them.
template <typename Result, typename Evaluate>
void evaluate_row(const Position& first, int count, Result* results, const Evaluate& evaluate) {
  constexpr int kGroup = 16;
  const auto at = [&](int n) { return Position{first.batch, first.head, first.query + n, first.key}; };
  int begin = 0;
  for (; begin + kGroup <= count; begin += kGroup) {
    Result group[kGroup];
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 1  // unrolled before they are vectors, they would stay single
#endif
    for (int n = 0; n < kGroup; ++n) group[n] = evaluate(begin + n, at(begin + n));
    for (int n = 0; n < kGroup; ++n) results[begin + n] = group[n];
  }
  for (; begin < count; ++begin) results[begin] = evaluate(begin, at(begin));
}

}  // namespace detail
}  // namespace attend
