#pragma once

// The kernel of a single token: one step of the recurrence, which updates the state in place (Katharopoulos
// 2020; delta rule: Yang 2024).
//
//     S = diag(a) S + k u^T,   o = scale S^T q / n,   u = v, or beta (v - (diag(a) S)^T k)

#include <type_traits>

#include "cpu/linear_attention/chunk_forward.h"

namespace attend::cpu {
namespace {

template <typename T>
struct StepScratch {
  T *query, *key, *log_decay, *decay;  ///< [padded d]
  T *value, *read;                     ///< [padded state width]

  StepScratch(ScratchAllocator& allocator, const LinearArgs& args) {
    query = allocator.take<T>(padded<T>(args.d));
    key = allocator.take<T>(padded<T>(args.d));
    log_decay = allocator.take<T>(padded<T>(args.d));
    decay = allocator.take<T>(padded<T>(args.d));
    value = allocator.take<T>(padded<T>(args.state_width()));
    read = allocator.take<T>(padded<T>(args.state_width()));
  }
};

/// Updates kCount columns (V = T) or kCount vectors of columns (V = Vec<T>) of the state, and computes these
/// columns of read = S^T q. `beta` is null without the delta rule.
template <typename T, typename V, int kCount>
void step_columns(const LinearArgs& args, const StepScratch<T>& scratch, const T* beta, int64_t column,
                  T* state) {
  constexpr int64_t kSize = std::is_same_v<V, T> ? 1 : kLanes<T>;
  const int64_t stride = args.state_width();
  V written[kCount], read[kCount];
  for (int n = 0; n < kCount; ++n) {
    written[n] = load_as<V>(scratch.value + column + n * kSize);
    read[n] = V{};
  }
  if (beta != nullptr) {
    V retrieved[kCount] = {};
    for (int64_t d = 0; d < args.d; ++d) {
      const T factor = scratch.decay[d] * scratch.key[d];
      for (int n = 0; n < kCount; ++n) {
        retrieved[n] += load_as<V>(state + d * stride + column + n * kSize) * factor;
      }
    }
    for (int n = 0; n < kCount; ++n) written[n] = (written[n] - retrieved[n]) * *beta;
  }
  for (int64_t d = 0; d < args.d; ++d) {
    for (int n = 0; n < kCount; ++n) {
      T* place = state + d * stride + column + n * kSize;
      const V next = load_as<V>(place) * scratch.decay[d] + written[n] * scratch.key[d];
      store_as<T>(place, next);
      read[n] += next * scratch.query[d];
    }
  }
  for (int n = 0; n < kCount; ++n) store_as<T>(scratch.read + column + n * kSize, read[n]);
}

template <typename Element>
void load_step(const LinearArgs& args, const Chunk& token, const StepScratch<Compute<Element>>& scratch) {
  using T = Compute<Element>;
  const int64_t features = padded<T>(args.d), width = padded<T>(args.state_width());
  copy_matrix(query_rows<Element>(args, token, scratch.query), 1, features, {scratch.query, features});
  copy_matrix(key_rows<Element>(args, token, scratch.key), 1, features, {scratch.key, features});
  copy_matrix(value_rows<Element>(args, token, scratch.value), 1, width, {scratch.value, width});
  const auto log = log_decays<T>(args, token, scratch.log_decay);
  for (int64_t d = 0; d < features; d += kLanes<T>) {
    const auto logarithm = log.is_none()          ? Vec<T>{}
                           : log.is_per_channel() ? load(log.data + d)
                                                  : broadcast(*log.data);
    store(scratch.decay + d, exp(logarithm));
  }
}

/// Computes the step of one head.
template <typename Element>
void step(const LinearForwardArgs& args, int64_t head, void* memory) {
  using T = Compute<Element>;
  ScratchAllocator allocator(memory);
  const StepScratch<T> scratch(allocator, args);
  const auto token = chunk_at(args, head);
  load_step<Element>(args, token, scratch);
  T* state = static_cast<T*>(args.states.data) + head * args.d * args.state_width();
  const T* beta = args.has_delta_rule() ? row_at<const T>(args.beta, token.head, token, 0, 0) : nullptr;
  int64_t column = 0;
  for (; column + 4 * kLanes<T> <= args.d_v; column += 4 * kLanes<T>) {
    step_columns<T, Vec<T>, 4>(args, scratch, beta, column, state);
  }
  for (; column + kLanes<T> <= args.d_v; column += kLanes<T>) {
    step_columns<T, Vec<T>, 1>(args, scratch, beta, column, state);
  }
  for (; column < args.d_v; ++column) step_columns<T, T, 1>(args, scratch, beta, column, state);
  if (args.normalize) step_columns<T, T, 1>(args, scratch, nullptr, column, state);
  write_outputs<Element>(args, token, scratch.read);
}

}  // namespace
}  // namespace attend::cpu
