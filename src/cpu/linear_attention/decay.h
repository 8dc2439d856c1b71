#pragma once

// Decays within a chunk. Each is a product of decays of steps in a row, exp of the sum of their logarithms:
// a sum of terms of one sign of these steps alone, never a difference of longer sums, which would lose small
// decays beside large ones. No factor is above 1, and nothing is divided by one.

#include "cpu/linear_attention/chunk.h"

namespace attend::cpu {
namespace {

/// The logarithms of a chunk's decays, [steps, width], rows padded unless of one number; 0 where there is no
/// key.
template <typename T>
struct LogDecays {
  const T* data;
  int64_t width, stride;

  bool is_none() const { return width == 0; }
  bool is_per_channel() const { return width > 1; }
  const T* row(int64_t t) const { return data + t * stride; }
};

/// Stands for -inf, from which a sum could not go on.
template <typename T>
constexpr T kForgets = static_cast<T>(-1e30);

template <typename T>
LogDecays<T> log_decays(const LinearArgs& args, const Chunk& chunk, T* copy) {
  const int64_t width = args.decay_width == 1 ? 1 : padded<T>(args.decay_width);
  if (args.decay_width != 0) {
    copy_rows<T>(args.log_decay, chunk.head, chunk, chunk.keys, first_key_step(args), args.decay_width, copy,
                 width);
    for (int64_t n = 0; n < chunk.steps * width; ++n) copy[n] = copy[n] < kForgets<T> ? kForgets<T> : copy[n];
  }
  return {copy, args.decay_width, width};
}

/// A sum and what its roundings left out (Knuth's two-sum): the same decay step after step would else add up
/// the same rounding.
template <typename T, typename V = Vec<T>>
struct ExactSum {
  V high = {}, low = {};

  void add(V x) {
    const V next = high + x, part = next - high;
    low += (high - (next - part)) + (x - part);
    high = next;
  }
  V value() const { return high + low; }
};

/// Calls action.operator()<V>(column) for each vector of columns, or for the only column.
template <typename T, typename Action>
void for_columns(const LogDecays<T>& log, Action action) {
  if (log.width == 1) return action.template operator()<T>(0);
  for (int64_t column = 0; column < log.stride; column += kLanes<T>)
    action.template operator()<Vec<T>>(column);
}

/// Up to a multiple of the vector length.
template <typename T>
void exp_in_place(T* numbers, int64_t count) {
  for (int64_t n = 0; n < count; n += kLanes<T>) store(numbers + n, exp(load(numbers + n)));
}

/// to [steps, stride] = at t the decay of the steps up to t.
template <typename T>
void decays_from_start(const LogDecays<T>& log, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    ExactSum<T, V> sum;
    for (int64_t t = 0; t < steps; ++t) {
      sum.add(load_as<V>(log.row(t) + column));
      store_as<T>(to + t * log.stride + column, sum.value());
    }
  });
  exp_in_place(to, steps * log.stride);
}

/// to [steps, stride] = at s the decay of the steps after s.
template <typename T>
void decays_to_end(const LogDecays<T>& log, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    ExactSum<T, V> sum;
    for (int64_t s = steps - 1; s >= 0; --s) {
      store_as<T>(to + s * log.stride + column, sum.value());
      sum.add(load_as<V>(log.row(s) + column));
    }
  });
  exp_in_place(to, steps * log.stride);
}

/// to [padded width] = the decay of all steps.
template <typename T>
void decay_of_chunk(const LogDecays<T>& log, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    ExactSum<T, V> sum;
    for (int64_t t = 0; t < steps; ++t) sum.add(load_as<V>(log.row(t) + column));
    store_as<T>(to + column, sum.value());
  });
  exp_in_place(to, log.width);
}

/// Row t of `rows` times factors[t], of the step or of each channel.
template <typename T>
Rows<const T> decayed(Rows<const T> rows, const LogDecays<T>& log, const T* factors, int64_t steps,
                      int64_t width, T* copy) {
  if (log.is_none()) return rows;
  for (int64_t t = 0; t < steps; ++t) {
    const T* factor = factors + t * log.stride;
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      const auto of_row = log.is_per_channel() ? load(factor + d) : all(*factor);
      store(copy + t * width + d, load(rows.data + t * rows.stride + d) * of_row);
    }
  }
  return {copy, width};
}

/// What the gradient of a logarithm at r is put together from: terms that hold decays up to a step t >= r,
/// terms that hold decays after a step s < r, and what all steps have in common. Each holds the decay of step
/// r, and none is taken away again. [steps, stride], [steps, stride], [stride].
template <typename T>
struct LogDecayTerms {
  T *up_to, *after, *common;
};

/// The way back through `decayed`, where there are decays: sets or adds to the gradient of the rows, and adds
/// to the terms, either those of steps up to t or after t.
template <typename T, Update update>
void decayed_backward(Rows<const T> rows, Rows<const T> grad_decayed, const LogDecays<T>& log,
                      const T* factors, int64_t steps, int64_t width, T* grad_rows, T* terms) {
  for (int64_t t = 0; t < steps; ++t) {
    Vec<T> of_step = {};
    const T* factor = factors + t * log.stride;
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      T *grad_row = grad_rows + t * width + d, *term = terms + t * log.stride + d;
      const auto of_row = log.is_per_channel() ? load(factor + d) : all(*factor);
      const auto grad = load(grad_decayed.data + t * grad_decayed.stride + d) * of_row;
      store(grad_row, update == Update::set ? grad : load(grad_row) + grad);
      const auto product = grad * load(rows.data + t * rows.stride + d);
      if (log.is_per_channel()) store(term, load(term) + product);
      of_step += product;
    }
    if (log.width == 1) terms[t * log.stride] += sum<T>(of_step);
  }
}

/// to_r += common + sum over t >= r of up_to_t + sum over s < r of after_s. A rounding within a sum would be
/// in all sums that go on from it.
template <typename T>
void add_terms(const LogDecays<T>& log, const LogDecayTerms<T>& terms, int64_t steps, T* to) {
  for_columns(log, [&]<typename V>(int64_t column) {
    ExactSum<T, V> above{load_as<V>(terms.common + column)}, below;
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
