#pragma once

// Computes the outputs of a chunk from the state S at its start and from its keys and values (Yang 2023,
// section 4):
//
//     read = (Q decayed from the start) S + A V,   o_t = scale read_t / n_t
//
// where A_ts = q_t (decay of the steps s + 1 ... t) k_s for s <= t.

#include <limits>

#include "cpu/linear_attention/delta.h"

namespace attend::cpu {
namespace {

template <typename T>
struct OutputScratch {
  StateScratch<T> state;
  ProductScratch<T> product;
  T* query;     ///< [kMaxChunk, padded d]
  T* beta;      ///< [kMaxChunk]
  T* products;  ///< [kMaxChunk, kMaxChunk]
  T* read;      ///< [kMaxChunk, padded state width]

  OutputScratch(ScratchAllocator& allocator, const LinearArgs& args)
      : state(allocator, args), product(allocator, args.d, args.decay_width) {
    query = allocator.take<T>(kMaxChunk * padded<T>(args.d));
    beta = allocator.take<T>(kMaxChunk);
    products = allocator.take<T>(kMaxChunk * kMaxChunk);
    read = allocator.take<T>(kMaxChunk * padded<T>(args.state_width()));
  }
};

template <typename Element>
int64_t forward_scratch_bytes(const LinearArgs& args) {
  using T = Compute<Element>;
  const int64_t outputs = scratch_bytes<OutputScratch<T>>(args), delta = scratch_bytes<DeltaScratch<T>>(args);
  return outputs > delta ? outputs : delta;
}

/// Returns the values V of the chunk, or with the delta rule the values U that its steps write to the state;
/// see delta.h.
template <typename Element>
Rows<const Compute<Element>> written_or_value_rows(const LinearArgs& args, const Chunk& chunk,
                                                   Compute<Element>* beta, Compute<Element>* copy) {
  if (!args.has_delta_rule()) return value_rows<Element>(args, chunk, copy);
  return written_rows(args, chunk, load_beta(args, chunk, beta), copy);
}

/// Returns the normaliser, or 0 if it is so small that its terms may have underflowed and that gradients
/// divided by it would overflow.
template <typename T>
T normaliser_or_zero(T normaliser) {
  constexpr T kSmallest = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();
  return normaliser > -kSmallest && normaliser < kSmallest ? T{0} : normaliser;
}

/// Writes o_t = scale read_t / n_t, and the normaliser and the unrounded output for the backward.
template <typename Element>
void write_outputs(const LinearForwardArgs& args, const Chunk& chunk, Compute<Element>* read) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.state_width()), first = first_query_step(args);
  for (int64_t t = chunk.queries.begin; t < chunk.queries.end; ++t) {
    T* row = read + t * width;
    const T scale = static_cast<T>(args.scale),
            normaliser = args.normalize ? normaliser_or_zero(row[args.d_v]) : T{1};
    for (int64_t w = 0; w < width; w += kLanes<T>) {
      const auto scaled = load(row + w) * scale;
      store(row + w, !args.normalize ? scaled : normaliser == 0 ? Vec<T>{} : scaled / normaliser);
    }
    auto* to = row_at<Element>(args.output, chunk.head, chunk, t, first);
    for (int64_t w = 0; w < args.d_v; ++w) narrow(row[w], to[w]);
    if (args.unrounded.data != nullptr && args.unrounded.data != args.output.data) {
      T* unrounded = row_at<T>(args.unrounded, chunk.head, chunk, t, first);
      for (int64_t w = 0; w < args.d_v; ++w) unrounded[w] = row[w];
    }
    if (args.normaliser == nullptr) continue;
    const int64_t query = (chunk.batch * args.heads + chunk.head) * args.queries + chunk.step + t - first;
    static_cast<T*>(args.normaliser)[query] = normaliser;
  }
}

/// The rows of a chunk from which its outputs and its contribution to the state are computed.
template <typename T>
struct ForwardRows {
  LogDecays<T> log;
  Rows<const T> key, value;
};

template <typename Element>
ForwardRows<Compute<Element>> forward_rows(const LinearArgs& args, const Chunk& chunk,
                                           const OutputScratch<Compute<Element>>& scratch) {
  return {log_decays<Compute<Element>>(args, chunk, scratch.state.log_decay),
          key_rows<Element>(args, chunk, scratch.state.features),
          written_or_value_rows<Element>(args, chunk, scratch.beta, scratch.state.values)};
}

/// Computes the outputs of a chunk from the state at its start.
template <typename Element>
void chunk_outputs(const LinearForwardArgs& args, const Chunk& chunk,
                   const ForwardRows<Compute<Element>>& rows, const Compute<Element>* state,
                   const OutputScratch<Compute<Element>>& scratch) {
  using T = Compute<Element>;
  const auto& [log, key, value] = rows;
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto query = query_rows<Element>(args, chunk, scratch.query);
  prefetch_some(args);
  // A_ts = q_t (decay of the steps s + 1 ... t) k_s
  if (!chunk.keys.is_empty())
    decayed_products<T>(log, n, args.d, query, key, scratch.product, {scratch.products, kMaxChunk});
  // read = (Q decayed from the start) S + A V
  if (!log.is_none()) decays_from_start<T>(log, n, scratch.state.factors);
  const auto decayed_query =
      decayed<T>(query, log, scratch.state.factors, n, padded<T>(args.d), scratch.state.decayed);
  prefetch_some(args);
  gemm_dots<T>(n, width, args.d, {decayed_query.data, decayed_query.stride, 1}, {state, width},
               {scratch.read, width});
  prefetch_some(args);
  if (!chunk.keys.is_empty()) {
    lower_times<T, Update::add>(n, width, {scratch.products, kMaxChunk}, value, {scratch.read, width});
  }
  write_outputs<Element>(args, chunk, scratch.read);
}

template <typename Element>
void chunk_forward(const LinearForwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  using S = OutputScratch<T>;
  run_chunk_task<S>(args, task, memory, [&](const Chunk& chunk, const S& scratch) {
    if (chunk.queries.is_empty()) return;
    chunk_outputs<Element>(args, chunk, forward_rows<Element>(args, chunk, scratch),
                           state_at<T>(args, args.states, chunk.slot, chunk.index), scratch);
  });
}

}  // namespace
}  // namespace attend::cpu
