#pragma once

// Decays within a chunk (Sun 2023, Yang 2023). The decay of consecutive steps r ... t is a_r ... a_t =
// exp(g_r + ... + g_t). Each of these sums is accumulated from its own terms, which are all <= 0. It is never
// the difference of two longer sums, in which small terms would be lost beside large ones. No factor is above
// 1, and nothing is divided by a decay.

#include "cpu/linear_attention/chunk.h"

namespace attend::cpu {
namespace {

/// The logarithms of the decays of a chunk, [steps, width]. Rows are padded to whole vectors unless width is
/// 1. Steps without a key have logarithm 0.
template <typename T>
struct LogDecays {
  const T* data;
  int64_t width, stride;

  bool is_none() const { return width == 0; }
  bool is_per_channel() const { return width > 1; }
  const T* row(int64_t t) const { return data + t * stride; }
};

/// The value that stands for -inf, the logarithm of a decay of 0: a compensated sum with -inf would be NaN.
template <typename T>
constexpr T kLogZero = static_cast<T>(-1e30);

template <typename T>
LogDecays<T> log_decays(const LinearArgs& args, const Chunk& chunk, T* copy) {
  const int64_t width = args.decay_width == 1 ? 1 : padded<T>(args.decay_width);
  if (args.decay_width != 0) {
    copy_rows<T>(args.log_decay, chunk.head, chunk, chunk.keys, first_key_step(args), args.decay_width, copy,
                 width);
    for (int64_t n = 0; n < chunk.steps * width; ++n) copy[n] = copy[n] < kLogZero<T> ? kLogZero<T> : copy[n];
  }
  return {copy, args.decay_width, width};
}

/// A sum and the accumulated rounding errors of its additions (Knuth's two-sum). If all steps have the same
/// decay, the rounding errors have the same sign, and would add up in a plain sum.
template <typename T, typename V = Vec<T>>
struct CompensatedSum {
  V high = {}, low = {};

  void add(V x) {
    const V next = high + x, part = next - high;
    low += (high - (next - part)) + (x - part);
    high = next;
  }
  V value() const { return high + low; }
};

/// Calls action.operator()<V>(column) for each vector of columns with V = Vec<T>, or once with V = T if there
/// is only one column.
template <typename T, typename Action>
void for_columns(const LogDecays<T>& log, Action action) {
  if (log.width == 1) return action.template operator()<T>(0);
  for (int64_t column = 0; column < log.stride; column += kLanes<T>)
    action.template operator()<Vec<T>>(column);
}

/// Replaces each element x by exp(x). `count` is rounded up to whole vectors.
template <typename T>
void exp_in_place(T* values, int64_t count) {
  for (int64_t n = 0; n < count; n += kLanes<T>) store(values + n, exp(load(values + n)));
}

/// Sets row t of `to` [steps, stride] to the decay of the steps 0 ... t.
template <typename T>
void decays_from_start(const LogDecays<T>& log, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    CompensatedSum<T, V> sum;
    for (int64_t t = 0; t < steps; ++t) {
      sum.add(load_as<V>(log.row(t) + column));
      store_as<T>(to + t * log.stride + column, sum.value());
    }
  });
  exp_in_place(to, steps * log.stride);
}

/// Sets row s of `to` [steps, stride] to the decay of the steps s + 1 ... steps - 1.
template <typename T>
void decays_to_end(const LogDecays<T>& log, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    CompensatedSum<T, V> sum;
    for (int64_t s = steps - 1; s >= 0; --s) {
      store_as<T>(to + s * log.stride + column, sum.value());
      sum.add(load_as<V>(log.row(s) + column));
    }
  });
  exp_in_place(to, steps * log.stride);
}

/// Sets `to` [padded width] to the decay of all steps of the chunk.
template <typename T>
void chunk_decay(const LogDecays<T>& log, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    CompensatedSum<T, V> sum;
    for (int64_t t = 0; t < steps; ++t) sum.add(load_as<V>(log.row(t) + column));
    store_as<T>(to + column, sum.value());
  });
  exp_in_place(to, log.width);
}

/// Returns the rows, each multiplied by its factor per step or by its factors per channel. Without decays,
/// returns `rows`.
template <typename T>
Rows<const T> decayed(Rows<const T> rows, const LogDecays<T>& log, const T* factors, int64_t steps,
                      int64_t width, T* copy) {
  if (log.is_none()) return rows;
  for (int64_t t = 0; t < steps; ++t) {
    const T* factor = factors + t * log.stride;
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      const auto row_factor = log.is_per_channel() ? load(factor + d) : broadcast(*factor);
      store(copy + t * width + d, load(rows.data + t * rows.stride + d) * row_factor);
    }
  }
  return {copy, width};
}

/// Accumulators of the gradients of the log decays g_r. Row t of `up_to` [steps, stride] is a term of the
/// gradient of every g_r with r <= t, row s of `after` [steps, stride] of every g_r with r > s, and `common`
/// [stride] of every g_r. The terms are only added, never subtracted, so that nothing cancels.
template <typename T>
struct LogDecayTerms {
  T *up_to, *after, *common;
};

/// The backward of `decayed` for a call with decays: writes (Update::set) or adds the gradient of the rows,
/// and adds to `terms`, which is LogDecayTerms::up_to or LogDecayTerms::after.
template <typename T, Update update>
void decayed_backward(Rows<const T> rows, Rows<const T> grad_decayed, const LogDecays<T>& log,
                      const T* factors, int64_t steps, int64_t width, T* grad_rows, T* terms) {
  for (int64_t t = 0; t < steps; ++t) {
    Vec<T> step_sum = {};
    const T* factor = factors + t * log.stride;
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      T *grad_row = grad_rows + t * width + d, *term = terms + t * log.stride + d;
      const auto row_factor = log.is_per_channel() ? load(factor + d) : broadcast(*factor);
      const auto grad = load(grad_decayed.data + t * grad_decayed.stride + d) * row_factor;
      store(grad_row, update == Update::set ? grad : load(grad_row) + grad);
      const auto product = grad * load(rows.data + t * rows.stride + d);
      if (log.is_per_channel()) store(term, load(term) + product);
      step_sum += product;
    }
    if (log.width == 1) terms[t * log.stride] += sum<T>(step_sum);
  }
}

/// Computes to_r += common + sum_{t >= r} up_to_t + sum_{s < r} after_s. The running sums are compensated,
/// since a rounding error would remain in all later sums.
template <typename T>
void add_log_gradients(const LogDecays<T>& log, const LogDecayTerms<T>& terms, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    CompensatedSum<T, V> above{load_as<V>(terms.common + column)}, below;
    for (int64_t r = 0; r < steps; ++r) {
      T* place = to + r * log.stride + column;
      store_as<T>(place, load_as<V>(place) + above.value());
      above.add(load_as<V>(terms.after + r * log.stride + column));
    }
    for (int64_t r = steps - 1; r >= 0; --r) {
      T* place = to + r * log.stride + column;
      below.add(load_as<V>(terms.up_to + r * log.stride + column));
      store_as<T>(place, load_as<V>(place) + below.value());
    }
  });
}

}  // namespace
}  // namespace attend::cpu
