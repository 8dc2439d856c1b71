#pragma once

// One token: the recurrence itself, on a state that is changed in place.

#include <type_traits>

#include "cpu/linear_attention/forward.h"

namespace attend::cpu {
namespace {

template <typename T>
struct StepScratch {
  T *query, *key, *log_decay, *decay;  ///< [padded d]
  T *value, *read;                     ///< [padded state width]

  StepScratch(Scratch& scratch, const LinearArgs& args) {
    query = scratch.take<T>(padded<T>(args.d));
    key = scratch.take<T>(padded<T>(args.d));
    log_decay = scratch.take<T>(padded<T>(args.d));
    decay = scratch.take<T>(padded<T>(args.d));
    value = scratch.take<T>(padded<T>(args.state_width()));
    read = scratch.take<T>(padded<T>(args.state_width()));
  }
};

template <typename Element>
int64_t step_scratch(const LinearArgs& args) {
  Scratch scratch(nullptr);
  const StepScratch<Compute<Element>> own(scratch, args);
  return scratch.used();
}

/// S = diag(decay) S + k u^T and read = S^T q, of `kTogether` columns or vectors of columns; u = v, or with
/// the delta rule beta (v - (diag(decay) S)^T k).
template <typename T, typename V, int kTogether>
void step_columns(const LinearArgs& args, const StepScratch<T>& own, const T* beta, int64_t column,
                  T* state) {
  constexpr int64_t kSize = std::is_same_v<V, T> ? 1 : kLanes<T>;
  const int64_t stride = args.state_width();
  V written[kTogether], read[kTogether];
  for (int n = 0; n < kTogether; ++n) {
    written[n] = load_as<V>(own.value + column + n * kSize);
    read[n] = V{};
  }
  if (beta != nullptr) {
    V known[kTogether] = {};
    for (int64_t d = 0; d < args.d; ++d) {
      const T factor = own.decay[d] * own.key[d];
      for (int n = 0; n < kTogether; ++n) {
        known[n] += load_as<V>(state + d * stride + column + n * kSize) * factor;
      }
    }
    for (int n = 0; n < kTogether; ++n) written[n] = (written[n] - known[n]) * *beta;
  }
  for (int64_t d = 0; d < args.d; ++d) {
    for (int n = 0; n < kTogether; ++n) {
      T* place = state + d * stride + column + n * kSize;
      const V next = load_as<V>(place) * own.decay[d] + written[n] * own.key[d];
      store_as<T>(place, next);
      read[n] += next * own.query[d];
    }
  }
  for (int n = 0; n < kTogether; ++n) store_as<T>(own.read + column + n * kSize, read[n]);
}

template <typename Element>
void load_step(const LinearArgs& args, const Chunk& token, const StepScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
  const int64_t features = padded<T>(args.d), width = padded<T>(args.state_width());
  copy_matrix(query_rows<Element>(args, token, own.query), 1, features, {own.query, features});
  copy_matrix(key_rows<Element>(args, token, own.key), 1, features, {own.key, features});
  copy_matrix(value_rows<Element>(args, token, own.value), 1, width, {own.value, width});
  const auto log = log_decays<T>(args, token, own.log_decay);
  for (int64_t d = 0; d < features; d += kLanes<T>) {
    const auto logarithm = log.is_none()          ? Vec<T>{}
                           : log.is_per_channel() ? load(log.data + d)
                                                  : all(*log.data);
    store(own.decay + d, exp(logarithm));
  }
}

/// For each head.
template <typename Element>
void step(const LinearForwardArgs& args, int64_t head, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const StepScratch<T> own(scratch, args);
  const auto token = chunk_at(args, head);
  load_step<Element>(args, token, own);
  T* state = static_cast<T*>(args.states.data) + head * args.d * args.state_width();
  const T* beta = args.has_delta_rule() ? row_at<const T>(args.beta, token.head, token, 0, 0) : nullptr;
  int64_t column = 0;
  for (; column + 4 * kLanes<T> <= args.d_v; column += 4 * kLanes<T>) {
    step_columns<T, Vec<T>, 4>(args, own, beta, column, state);
  }
  for (; column + kLanes<T> <= args.d_v; column += kLanes<T>) {
    step_columns<T, Vec<T>, 1>(args, own, beta, column, state);
  }
  for (; column < args.d_v; ++column) step_columns<T, T, 1>(args, own, beta, column, state);
  if (args.normalize) step_columns<T, T, 1>(args, own, nullptr, column, state);
  write_outputs<Element>(args, token, own.read);
}

}  // namespace
}  // namespace attend::cpu
