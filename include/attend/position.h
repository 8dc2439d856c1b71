#pragma once

namespace attend {

/// The position of a score, the argument of lambdas on scores and masks. The members are 32-bit integers, so
/// that the compiler vectorises computations with them. Convert them before a product that may exceed 2^31.
struct Position {
  int batch;  ///< index of the batch element
  int head;   ///< index of the query's head
  int query;  ///< the query's own position among the keys, i + Lk - Lq for query i; negative where Lq > Lk
  int key;    ///< index of the key
};

}  // namespace attend
