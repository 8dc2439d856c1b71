#pragma once

// The gradients of a chunk from the state at its start, the gradient of the state at its end, and its own
// rows, part by part.

#include "cpu/linear_attention/forward.h"

namespace attend::cpu {
namespace {

template <typename T>
struct GradientScratch {
  OutputScratch<T> forward;
  T *start_factors, *end_factors;  ///< [kChunk, padded decay width]: decays from the start, to the end
  LogDecayTerms<T> terms;          ///< likewise
  T* grad_log;                     ///< likewise
  T* grad_beta;                    ///< [kChunk]
  T *grad_query, *grad_key;        ///< [kChunk, padded d]
  T* grad_decayed;                 ///< likewise
  T *grad_read, *grad_value;       ///< [kChunk, padded state width]
  T* grad_products;                ///< [kChunk, kChunk]
  T* value_t;                      ///< [state width, kChunk]
  T* state_t;                      ///< [state width, padded d]

  GradientScratch(Scratch& scratch, const LinearArgs& args) : forward(scratch, args) {
    const int64_t decays = kChunk * padded<T>(args.decay_width), features = kChunk * padded<T>(args.d);
    const int64_t values = kChunk * padded<T>(args.state_width());
    start_factors = scratch.take<T>(decays);
    end_factors = scratch.take<T>(decays);
    terms = {scratch.take<T>(decays), scratch.take<T>(decays), scratch.take<T>(decays)};
    grad_log = scratch.take<T>(decays);
    grad_beta = scratch.take<T>(kChunk);
    grad_query = scratch.take<T>(features);
    grad_key = scratch.take<T>(features);
    grad_decayed = scratch.take<T>(features);
    grad_read = scratch.take<T>(values);
    grad_value = scratch.take<T>(values);
    grad_products = scratch.take<T>(kChunk * kChunk);
    value_t = scratch.take<T>(args.state_width() * kChunk);
    state_t = scratch.take<T>(args.state_width() * padded<T>(args.d));
  }
};

template <typename Element>
int64_t backward_scratch(const LinearArgs& args) {
  Scratch scratch(nullptr);
  const GradientScratch<Compute<Element>> own(scratch, args);
  return scratch.used();
}

/// The sum over n of a_n b_n, in as many sums as there are lanes.
template <typename T>
T dot_unpadded(const T* a, const T* b, int64_t size) {
  Vec<T> sums = {};
  int64_t n = 0;
  for (; n + kLanes<T> <= size; n += kLanes<T>) sums += load(a + n) * load(b + n);
  for (int64_t lane = 0; n < size; ++n, ++lane) sums[lane] += a[n] * b[n];
  return sum<T>(sums);
}

/// The gradient of what the queries read: of o_t = scale * read_t / n_t it is scale * do_t / n_t, and for the
/// normaliser -(do_t o_t) / n_t; 0 where n_t is 0.
template <typename Element>
Rows<const Compute<Element>> grad_read_rows(const LinearBackwardArgs& args, const Chunk& chunk,
                                            Compute<Element>* to) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.state_width()), first = first_query_step(args);
  copy_rows<Element>(args.grad_output, chunk.head, chunk, chunk.queries, first, args.d_v, to, width);
  for (int64_t t = chunk.queries.begin; t < chunk.queries.end; ++t) {
    T* row = to + t * width;
    T factor = static_cast<T>(args.scale);
    if (args.normalize) {
      const int64_t query = (chunk.batch * args.heads + chunk.head) * args.queries + chunk.step + t - first;
      const T normaliser = static_cast<const T*>(args.normaliser)[query];
      const T* output = row_at<const T>(args.unrounded, chunk.head, chunk, t, first);
      factor = normaliser == 0 ? T{0} : factor / normaliser;
      row[args.d_v] = normaliser == 0 ? T{0} : -dot_unpadded(row, output, args.d_v) / normaliser;
    }
    for (int64_t w = 0; w < args.d_v; ++w) row[w] *= factor;
  }
  return {to, width};
}

/// (decayed Q)^T dread, into the gradient of the state at the chunk's start.
template <typename T>
void begin_grad_state(const LinearBackwardArgs& args, const Chunk& chunk, const LogDecays<T>& log,
                      Rows<const T> query, Rows<const T> grad_read, const T* start_factors, T* copy) {
  const auto decayed_query = decayed<T>(query, log, start_factors, chunk.steps, padded<T>(args.d), copy);
  outer_products<T>(args, chunk.steps, decayed_query, grad_read,
                    state_at<T>(args, args.grad_states, chunk.slot, chunk.index));
}

template <typename Element>
void add_to_grad_state(const LinearBackwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const StateScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, task);
  const auto log = log_decays<T>(args, chunk, own.log_decay);
  if (!log.is_none()) decays_from_start<T>(log, chunk.steps, own.factors);
  begin_grad_state<T>(args, chunk, log, query_rows<Element>(args, chunk, own.features),
                      grad_read_rows<Element>(args, chunk, own.values), own.factors, own.decayed);
}

/// Where the gradients of a chunk's rows are put together: in their tensor, whose rows are contiguous, where
/// each step has one of whole vectors, else in `copy`.
template <typename T>
T* gradient_rows(const Heads& tensor, const Chunk& chunk, Range meant, int64_t first_step, int64_t width,
                 T* copy) {
  const bool is_whole = meant.begin == 0 && meant.end == chunk.steps && tensor.row_stride == width;
  return is_whole ? row_at<T>(tensor, chunk.head, chunk, 0, first_step) : copy;
}

/// Writes rows of gradients; zeros where they are not `meant`: for keys past their length.
template <typename T>
void write_rows(const Heads& tensor, const Chunk& chunk, Range rows, Range meant, int64_t first_step,
                const T* from, int64_t from_stride, int64_t columns) {
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    T* to = row_at<T>(tensor, chunk.head, chunk, t, first_step);
    if (t < meant.begin || t >= meant.end) {
      fill(to, columns, T{0});
      continue;
    }
    for (int64_t column = 0; column < columns; ++column) to[column] = from[t * from_stride + column];
  }
}

template <typename T>
void unmap_gradients(const LinearArgs& args, int64_t steps, Rows<const T> features, T* grads) {
  if (args.feature_map == KernelFeatureMap::identity) return;
  const int64_t width = padded<T>(args.d);
  for (int64_t t = 0; t < steps; ++t) {
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      T* grad = grads + t * width + d;
      const auto phi = load(features.data + t * features.stride + d);
      store(grad, load(grad) * map_derivative<T>(args.feature_map, phi));
    }
  }
}

/// The rows of a chunk as its gradients read them, and where these are put together: in their tensor or in
/// scratch.
template <typename T>
struct ChunkRows {
  LogDecays<T> log;
  Rows<const T> query, key, value, grad_read;
  T *grad_query, *grad_key;  ///< [kChunk, padded d]
  T* grad_value;             ///< [kChunk, padded state width]
};

/// And A of the chunk.
template <typename Element>
ChunkRows<Compute<Element>> load_chunk(const LinearBackwardArgs& args, const Chunk& chunk,
                                       const GradientScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
  const ChunkRows<T> rows{
      log_decays<T>(args, chunk, own.forward.state.log_decay),
      query_rows<Element>(args, chunk, own.forward.query),
      key_rows<Element>(args, chunk, own.forward.state.features),
      written_or_value_rows<Element>(args, chunk, own.forward.beta, own.forward.state.values),
      grad_read_rows<Element>(args, chunk, own.grad_read),
      gradient_rows<T>(args.grad_query, chunk, chunk.queries, first_query_step(args), padded<T>(args.d),
                       own.grad_query),
      gradient_rows<T>(args.grad_key, chunk, chunk.keys, first_key_step(args), padded<T>(args.d),
                       own.grad_key),
      gradient_rows<T>(args.grad_value, chunk, chunk.keys, first_key_step(args),
                       padded<T>(args.state_width()), own.grad_value)};
  if (!rows.log.is_none()) {
    decays_from_start<T>(rows.log, chunk.steps, own.start_factors);
    decays_to_end<T>(rows.log, chunk.steps, own.end_factors);
  }
  const int64_t decays = chunk.steps * rows.log.stride;
  fill(own.terms.up_to, decays, T{0});
  fill(own.terms.after, decays, T{0});
  fill(own.grad_log, decays, T{0});
  decayed_products<T>(rows.log, chunk.steps, args.d, rows.query, rows.key, own.forward.product,
                      {own.forward.products, kChunk});
  return rows;
}

/// Of the products within the chunk: read += A V.
template <typename T>
void within_chunk_backward(const LinearArgs& args, int64_t n, const ChunkRows<T>& rows,
                           const GradientScratch<T>& own) {
  const int64_t width = padded<T>(args.state_width());
  const Rows<const T> a{own.forward.products, kChunk};
  // dA = dread V^T
  transpose<T>(rows.value, n, args.state_width(), own.value_t, kChunk);
  lower_dots<T>(n, args.state_width(), rows.grad_read, {own.value_t, kChunk}, {own.grad_products, kChunk});
  clear_above<T>(n, {own.grad_products, kChunk});
  if (!args.has_delta_rule()) {  // dV += A^T dread
    lower_transposed_times<T, Update::add>(n, width, a, rows.grad_read, {rows.grad_value, width});
  }
  decayed_products_backward<T>(rows.log, n, args.d, rows.query, rows.key, a, {own.grad_products, kChunk},
                               own.forward.product, rows.grad_query, rows.grad_key, own.grad_log);
}

/// Of the decay of the whole chunk: to_d = decay_d * (sum over w of S_dw dS'_dw), summed over d where the
/// channels share it.
template <typename T>
void chunk_decay_backward(const LinearArgs& args, int64_t n, const LogDecays<T>& log, const T* state,
                          const T* grad_state, T* to) {
  const int64_t width = padded<T>(args.state_width());
  decay_of_chunk<T>(log, n, to);
  ExactSum<T> shared;
  for (int64_t d = 0; d < args.d; ++d) {
    ExactSum<T> of_channel;
    auto& products = log.is_per_channel() ? of_channel : shared;
    for (int64_t place = d * width; place < (d + 1) * width; place += kLanes<T>) {
      products.add(load(state + place) * load(grad_state + place));
    }
    if (log.is_per_channel()) to[d] *= sum<T>(products.value());
  }
  if (!log.is_per_channel()) to[0] *= sum<T>(shared.value());
}

/// d(decayed rows) = grads S^T with the transposed state: sets or adds to the gradient of the rows, and adds
/// to the terms of their decays.
template <typename T, Update update>
void rows_of_state_backward(const LinearArgs& args, int64_t n, const LogDecays<T>& log, Rows<const T> grads,
                            Rows<const T> rows, const T* factors, const GradientScratch<T>& own, T* grad_rows,
                            T* terms) {
  const int64_t features = padded<T>(args.d);
  const Strided<T> a{grads.data, grads.stride, 1};
  const Rows<const T> state_t{own.state_t, features};
  if (log.is_none())
    return gemm_dots<T, update>(n, features, args.state_width(), a, state_t, {grad_rows, features});
  gemm_dots<T>(n, features, args.state_width(), a, state_t, {own.grad_decayed, features});
  decayed_backward<T, update>(rows, {own.grad_decayed, features}, log, factors, n, features, grad_rows,
                              terms);
}

/// Of what the chunk adds to the state: S' = diag(decay) S + (decay to the end of K)^T V.
template <typename T>
void to_state_backward(const LinearArgs& args, int64_t n, const ChunkRows<T>& rows, const T* state,
                       const T* grad_state, const GradientScratch<T>& own) {
  const int64_t width = padded<T>(args.state_width()), features = padded<T>(args.d);
  if (!args.has_delta_rule()) {  // dV = (decayed K) dS'
    const auto key = decayed<T>(rows.key, rows.log, own.end_factors, n, features, own.forward.state.decayed);
    gemm_dots<T>(n, width, args.d, {key.data, key.stride, 1}, {grad_state, width}, {rows.grad_value, width});
  }
  // d(decayed K) = V dS'^T
  transpose<T>({grad_state, width}, args.d, args.state_width(), own.state_t, features);
  rows_of_state_backward<T, Update::set>(args, n, rows.log, rows.value, rows.key, own.end_factors, own,
                                         rows.grad_key, own.terms.after);
  if (!rows.log.is_none()) chunk_decay_backward<T>(args, n, rows.log, state, grad_state, own.terms.common);
}

/// Of what the queries read of the state at the chunk's start: read += (decayed Q) S.
template <typename T>
void of_state_backward(const LinearArgs& args, int64_t n, const ChunkRows<T>& rows, const T* state,
                       const GradientScratch<T>& own) {
  const int64_t width = padded<T>(args.state_width()), features = padded<T>(args.d);
  // d(decayed Q) = dread S^T
  transpose<T>({state, width}, args.d, args.state_width(), own.state_t, features);
  rows_of_state_backward<T, Update::set>(args, n, rows.log, rows.grad_read, rows.query, own.start_factors,
                                         own, rows.grad_query, own.terms.up_to);
}

/// A contiguous tensor [B, H, Lk, width].
inline Heads of_keys(const LinearArgs& args, void* data, int64_t width) {
  const int64_t head = args.keys * width;
  return {data, args.heads * head, head, width};
}

}  // namespace
}  // namespace attend::cpu
