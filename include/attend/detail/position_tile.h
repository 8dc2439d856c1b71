#pragma once

#include <attend/position.h>

namespace attend::detail {

/// The positions of a rectangle of the scores of one head.
struct PositionTile {
  Position first;  ///< the position of the first query and the first key
  int queries;     ///< the number of queries
  int keys;        ///< the number of keys
};

/// Sets results[n] = evaluate(n, position of query n) for `count` queries from `first` on. Groups of a fixed
/// size are written to a local array first: since no pointer can alias this array, the compiler vectorises
/// the loop.
template <typename Result, typename Evaluate>
void evaluate_row(const Position& first, int count, Result* results, const Evaluate& evaluate) {
  constexpr int kGroup = 16;
  const auto at = [&](int n) { return Position{first.batch, first.head, first.query + n, first.key}; };
  int begin = 0;
  for (; begin + kGroup <= count; begin += kGroup) {
    Result group[kGroup];
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 1  // GCC would unroll the loop before it vectorises it, and then leave it scalar
#endif
    for (int n = 0; n < kGroup; ++n) group[n] = evaluate(begin + n, at(begin + n));
    for (int n = 0; n < kGroup; ++n) results[begin + n] = group[n];
  }
  for (; begin < count; ++begin) results[begin] = evaluate(begin, at(begin));
}

}  // namespace attend::detail
