#pragma once

// The backward of each term of the forward of a chunk (Yang 2023): of the state update S' = diag(decay) S +
// (K decayed to the end)^T V, of the product with the state, read = (Q decayed from the start) S, and of the
// products within the chunk, read += A V. chunk_backward.h combines these terms.

#include "cpu/linear_attention/chunk_forward.h"

namespace attend::cpu {
namespace {

template <typename T>
struct GradientScratch {
  OutputScratch<T> forward;
  T *start_factors, *end_factors;  ///< [kMaxChunk, padded decay width]: decays from the start, and to the end
  LogDecayTerms<T> terms;          ///< [kMaxChunk, padded decay width]
  T* grad_log;                     ///< [kMaxChunk, padded decay width]
  T* grad_beta;                    ///< [kMaxChunk]
  T *grad_query, *grad_key;        ///< [kMaxChunk, padded d]
  T* grad_decayed;                 ///< [kMaxChunk, padded d]
  T *grad_read, *grad_value;       ///< [kMaxChunk, padded state width]
  T* grad_products;                ///< [kMaxChunk, kMaxChunk]
  T* value_t;                      ///< [state width, kMaxChunk]
  T* state_t;                      ///< [state width, padded d]

  GradientScratch(ScratchAllocator& allocator, const LinearArgs& args) : forward(allocator, args) {
    const int64_t decays = kMaxChunk * padded<T>(args.decay_width), features = kMaxChunk * padded<T>(args.d);
    const int64_t values = kMaxChunk * padded<T>(args.state_width());
    start_factors = allocator.take<T>(decays);
    end_factors = allocator.take<T>(decays);
    terms = {allocator.take<T>(decays), allocator.take<T>(decays), allocator.take<T>(decays)};
    grad_log = allocator.take<T>(decays);
    grad_beta = allocator.take<T>(kMaxChunk);
    grad_query = allocator.take<T>(features);
    grad_key = allocator.take<T>(features);
    grad_decayed = allocator.take<T>(features);
    grad_read = allocator.take<T>(values);
    grad_value = allocator.take<T>(values);
    grad_products = allocator.take<T>(kMaxChunk * kMaxChunk);
    value_t = allocator.take<T>(args.state_width() * kMaxChunk);
    state_t = allocator.take<T>(args.state_width() * padded<T>(args.d));
  }
};

/// Returns the sum over n of a_n b_n, with one partial sum per lane.
template <typename T>
T dot_unpadded(const T* a, const T* b, int64_t size) {
  Vec<T> sums = {};
  int64_t n = 0;
  for (; n + kLanes<T> <= size; n += kLanes<T>) sums += load(a + n) * load(b + n);
  for (int64_t lane = 0; n < size; ++n, ++lane) sums[lane] += a[n] * b[n];
  return sum<T>(sums);
}

/// Returns the gradient of read_t, where o_t = scale read_t / n_t: scale do_t / n_t for the columns of the
/// values, and -(do_t . o_t) / n_t for the column of the normaliser; 0 where n_t is 0.
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

/// Stores (Q decayed from the start)^T dread in place of the gradient of the state at the start of the chunk.
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
  using S = StateScratch<T>;
  run_chunk_task<S>(args, task, memory, [&](const Chunk& chunk, const S& scratch) {
    const auto log = log_decays<T>(args, chunk, scratch.log_decay);
    if (!log.is_none()) decays_from_start<T>(log, chunk.steps, scratch.factors);
    begin_grad_state<T>(args, chunk, log, query_rows<Element>(args, chunk, scratch.features),
                        grad_read_rows<Element>(args, chunk, scratch.values), scratch.factors,
                        scratch.decayed);
  });
}

/// Returns the memory in which the gradients of the rows of a chunk are accumulated: the rows of the
/// contiguous tensor itself if each step of the chunk has a row there and these are whole vectors, otherwise
/// `copy`.
template <typename T>
T* gradient_rows(const StridedTensor& tensor, const Chunk& chunk, Range valid, int64_t first_step,
                 int64_t width, T* copy) {
  const bool is_whole =
      tensor.data != nullptr && valid.begin == 0 && valid.end == chunk.steps && tensor.row_stride == width;
  return is_whole ? row_at<T>(tensor, chunk.head, chunk, 0, first_step) : copy;
}

/// Writes rows of gradients. Rows outside of `valid`, those of keys past the key length, become zeros.
template <typename T>
void write_rows(const StridedTensor& tensor, const Chunk& chunk, Range rows, Range valid, int64_t first_step,
                const T* from, int64_t from_stride, int64_t columns) {
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    T* to = row_at<T>(tensor, chunk.head, chunk, t, first_step);
    if (t < valid.begin || t >= valid.end) {
      fill(to, columns, T{0});
      continue;
    }
    for (int64_t column = 0; column < columns; ++column) to[column] = from[t * from_stride + column];
  }
}

/// Multiplies the gradients of features by the derivative of the feature map.
template <typename T>
void feature_map_backward(const LinearArgs& args, int64_t steps, Rows<const T> features, T* grads) {
  if (args.feature_map == KernelFeatureMap::identity || grads == nullptr) return;
  const int64_t width = padded<T>(args.d);
  for (int64_t t = 0; t < steps; ++t) {
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      T* grad = grads + t * width + d;
      const auto phi = load(features.data + t * features.stride + d);
      store(grad, load(grad) * feature_map_derivative<T>(args.feature_map, phi));
    }
  }
}

/// The rows of a chunk from which its gradients are computed, and the memory in which the gradients are
/// accumulated: their tensor or scratch memory.
template <typename T>
struct ChunkRows {
  LogDecays<T> log;
  Rows<const T> query, key, value, grad_read;
  T *grad_query, *grad_key;  ///< [kMaxChunk, padded d], null where they are not computed
  T* grad_value;             ///< [kMaxChunk, padded state width], likewise
};

/// Loads the rows of a chunk, sets the accumulators of the gradients of log decays to zero, and computes A in
/// scratch.forward.products if it is needed.
template <typename Element>
ChunkRows<Compute<Element>> load_chunk(const LinearBackwardArgs& args, const Chunk& chunk,
                                       const GradientScratch<Compute<Element>>& scratch) {
  using T = Compute<Element>;
  ChunkRows<T> rows{
      log_decays<T>(args, chunk, scratch.forward.state.log_decay),
      query_rows<Element>(args, chunk, scratch.forward.query),
      key_rows<Element>(args, chunk, scratch.forward.state.features),
      written_or_value_rows<Element>(args, chunk, scratch.forward.beta, scratch.forward.state.values),
      grad_read_rows<Element>(args, chunk, scratch.grad_read),
      gradient_rows<T>(args.grad_query, chunk, chunk.queries, first_query_step(args), padded<T>(args.d),
                       scratch.grad_query),
      gradient_rows<T>(args.grad_key, chunk, chunk.keys, first_key_step(args), padded<T>(args.d),
                       scratch.grad_key),
      gradient_rows<T>(args.grad_value, chunk, chunk.keys, first_key_step(args),
                       padded<T>(args.state_width()), scratch.grad_value)};
  if (!args.computes_grad_query()) rows.grad_query = nullptr;
  if (!args.computes_grad_key()) rows.grad_key = nullptr;
  if (!args.computes_grad_value()) rows.grad_value = nullptr;
  if (!rows.log.is_none()) {
    decays_from_start<T>(rows.log, chunk.steps, scratch.start_factors);
    decays_to_end<T>(rows.log, chunk.steps, scratch.end_factors);
  }
  const int64_t decays = chunk.steps * rows.log.stride;
  fill(scratch.terms.up_to, decays, T{0});
  fill(scratch.terms.after, decays, T{0});
  fill(scratch.grad_log, decays, T{0});
  if (!args.needs_products()) return rows;
  decayed_products<T>(rows.log, chunk.steps, args.d, rows.query, rows.key, scratch.forward.product,
                      {scratch.forward.products, kMaxChunk});
  return rows;
}

/// The backward of the products within the chunk, read += A V.
template <typename T>
void intra_chunk_backward(const LinearBackwardArgs& args, int64_t n, const ChunkRows<T>& rows,
                          const GradientScratch<T>& scratch) {
  const int64_t width = padded<T>(args.state_width());
  const Rows<const T> a{scratch.forward.products, kMaxChunk};
  if (rows.grad_value != nullptr && !args.has_delta_rule()) {  // dV += A^T dread
    lower_transposed_times<T, Update::add>(n, width, a, rows.grad_read, {rows.grad_value, width});
  }
  if (rows.grad_query == nullptr && rows.grad_key == nullptr) return;
  // dA = dread V^T
  transpose<T>(rows.value, n, args.state_width(), scratch.value_t, kMaxChunk);
  lower_dots<T>(n, args.state_width(), rows.grad_read, {scratch.value_t, kMaxChunk},
                {scratch.grad_products, kMaxChunk});
  clear_above<T>(n, {scratch.grad_products, kMaxChunk});
  decayed_products_backward<T>(rows.log, n, args.d, rows.query, rows.key, a,
                               {scratch.grad_products, kMaxChunk}, scratch.forward.product, rows.grad_query,
                               rows.grad_key, args.grad_log_decay == nullptr ? nullptr : scratch.grad_log);
}

/// Computes the gradient of the logarithm of the decay of the chunk: to_d = decay_d sum_w S_dw dS'_dw, summed
/// over d if all channels have the same decay.
template <typename T>
void chunk_decay_backward(const LinearArgs& args, int64_t n, const LogDecays<T>& log, const T* state,
                          const T* grad_state, T* to) {
  const int64_t width = padded<T>(args.state_width());
  chunk_decay<T>(log, n, to);
  CompensatedSum<T> shared;
  for (int64_t d = 0; d < args.d; ++d) {
    CompensatedSum<T> channel_sum;
    auto& products = log.is_per_channel() ? channel_sum : shared;
    for (int64_t place = d * width; place < (d + 1) * width; place += kLanes<T>) {
      products.add(load(state + place) * load(grad_state + place));
    }
    if (log.is_per_channel()) to[d] *= sum<T>(products.value());
  }
  if (!log.is_per_channel()) to[0] *= sum<T>(shared.value());
}

/// The backward of a product of decayed rows and the state: with d(decayed rows) = grads S^T, writes
/// (Update::set) or adds the gradient of the rows, and adds to the `terms` of the gradients of log decays.
/// scratch.state_t must hold the transposed state.
template <typename T, Update update>
void state_product_backward(const LinearArgs& args, int64_t n, const LogDecays<T>& log, Rows<const T> grads,
                            Rows<const T> rows, const T* factors, const GradientScratch<T>& scratch,
                            T* grad_rows, T* terms) {
  const int64_t features = padded<T>(args.d);
  const Strided<T> a{grads.data, grads.stride, 1};
  const Rows<const T> state_t{scratch.state_t, features};
  if (log.is_none())
    return gemm_dots<T, update>(n, features, args.state_width(), a, state_t, {grad_rows, features});
  gemm_dots<T>(n, features, args.state_width(), a, state_t, {scratch.grad_decayed, features});
  decayed_backward<T, update>(rows, {scratch.grad_decayed, features}, log, factors, n, features, grad_rows,
                              terms);
}

/// The backward of the state update S' = diag(decay) S + (K decayed to the end)^T V.
template <typename T>
void state_update_backward(const LinearBackwardArgs& args, int64_t n, const ChunkRows<T>& rows,
                           const T* state, const T* grad_state, const GradientScratch<T>& scratch) {
  const int64_t width = padded<T>(args.state_width()), features = padded<T>(args.d);
  if (rows.grad_value != nullptr && !args.has_delta_rule()) {  // dV = (decayed K) dS'
    const auto key =
        decayed<T>(rows.key, rows.log, scratch.end_factors, n, features, scratch.forward.state.decayed);
    gemm_dots<T>(n, width, args.d, {key.data, key.stride, 1}, {grad_state, width}, {rows.grad_value, width});
  }
  if (rows.grad_key == nullptr) return;
  // d(decayed K) = V dS'^T
  transpose<T>({grad_state, width}, args.d, args.state_width(), scratch.state_t, features);
  state_product_backward<T, Update::set>(args, n, rows.log, rows.value, rows.key, scratch.end_factors,
                                         scratch, rows.grad_key, scratch.terms.after);
  if (args.grad_log_decay != nullptr)
    chunk_decay_backward<T>(args, n, rows.log, state, grad_state, scratch.terms.common);
}

/// The backward of read = (Q decayed from the start) S, with the state at the start of the chunk.
template <typename T>
void state_read_backward(const LinearBackwardArgs& args, int64_t n, const ChunkRows<T>& rows, const T* state,
                         const GradientScratch<T>& scratch) {
  const int64_t width = padded<T>(args.state_width()), features = padded<T>(args.d);
  if (rows.grad_query == nullptr && !args.needs_grad_delta()) return;
  // d(decayed Q) = dread S^T
  transpose<T>({state, width}, args.d, args.state_width(), scratch.state_t, features);
  if (rows.grad_query == nullptr) return;
  state_product_backward<T, Update::set>(args, n, rows.log, rows.grad_read, rows.query, scratch.start_factors,
                                         scratch, rows.grad_query, scratch.terms.up_to);
}

/// Returns a view of a contiguous tensor [B, H, Lk, width].
inline StridedTensor contiguous_key_tensor(const LinearArgs& args, void* data, int64_t width) {
  const int64_t head = args.keys * width;
  return {data, args.heads * head, head, width};
}

}  // namespace
}  // namespace attend::cpu
