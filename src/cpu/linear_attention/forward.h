#pragma once

// The outputs of a chunk from the state at its start and its own keys and values.

#include <limits>

#include "cpu/linear_attention/delta.h"

namespace attend::cpu {
namespace {

template <typename T>
struct OutputScratch {
  StateScratch<T> state;
  ProductScratch<T> product;
  T* query;     ///< [kChunk, padded d]
  T* beta;      ///< [kChunk]
  T* products;  ///< [kChunk, kChunk]
  T* read;      ///< [kChunk, padded state width]

  OutputScratch(Scratch& scratch, const LinearArgs& args)
      : state(scratch, args), product(scratch, args.d, args.decay_width) {
    query = scratch.take<T>(kChunk * padded<T>(args.d));
    beta = scratch.take<T>(kChunk);
    products = scratch.take<T>(kChunk * kChunk);
    read = scratch.take<T>(kChunk * padded<T>(args.state_width()));
  }
};

template <typename Element>
int64_t forward_scratch(const LinearArgs& args) {
  using T = Compute<Element>;
  Scratch of_outputs(nullptr), of_delta(nullptr);
  const OutputScratch<T> own(of_outputs, args);
  const DeltaScratch<T> delta(of_delta, args);
  return of_outputs.used() > of_delta.used() ? of_outputs.used() : of_delta.used();
}

/// What is added to the state with each key, in the place of the value with the delta rule.
template <typename Element>
Rows<const Compute<Element>> written_or_value_rows(const LinearArgs& args, const Chunk& chunk,
                                                   Compute<Element>* beta, Compute<Element>* copy) {
  if (!args.has_delta_rule()) return value_rows<Element>(args, chunk, copy);
  return written_rows(args, chunk, write_strengths(args, chunk, beta), copy);
}

/// 0 where a normaliser is so small that terms of it may have underflown, and gradients over it overflow.
template <typename T>
T normaliser_or_zero(T normaliser) {
  constexpr T kSmallest = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();
  return normaliser > -kSmallest && normaliser < kSmallest ? T{0} : normaliser;
}

/// o_t = scale * read_t, over the normaliser.
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

/// What the outputs of a chunk and its addition to the state read.
template <typename T>
struct ForwardRows {
  LogDecays<T> log;
  Rows<const T> key, value;
};

template <typename Element>
ForwardRows<Compute<Element>> forward_rows(const LinearArgs& args, const Chunk& chunk,
                                           const OutputScratch<Compute<Element>>& own) {
  return {log_decays<Compute<Element>>(args, chunk, own.state.log_decay),
          key_rows<Element>(args, chunk, own.state.features),
          written_or_value_rows<Element>(args, chunk, own.beta, own.state.values)};
}

/// From the state at the chunk's start.
template <typename Element>
void chunk_outputs(const LinearForwardArgs& args, const Chunk& chunk,
                   const ForwardRows<Compute<Element>>& rows, const Compute<Element>* state,
                   const OutputScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
  const auto& [log, key, value] = rows;
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto query = query_rows<Element>(args, chunk, own.query);
  look_ahead(args);
  // A_ts = q_t (decay of the steps after s up to t) k_s
  if (!chunk.keys.is_empty())
    decayed_products<T>(log, n, args.d, query, key, own.product, {own.products, kChunk});
  // read = (decay from the start) Q S + A V
  if (!log.is_none()) decays_from_start<T>(log, n, own.state.factors);
  const auto decayed_query =
      decayed<T>(query, log, own.state.factors, n, padded<T>(args.d), own.state.decayed);
  look_ahead(args);
  gemm_dots<T>(n, width, args.d, {decayed_query.data, decayed_query.stride, 1}, {state, width},
               {own.read, width});
  look_ahead(args);
  if (!chunk.keys.is_empty()) {
    lower_times<T, Update::add>(n, width, {own.products, kChunk}, value, {own.read, width});
  }
  write_outputs<Element>(args, chunk, own.read);
}

template <typename Element>
void outputs(const LinearForwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  const auto chunk = chunk_at(args, task);
  if (chunk.queries.is_empty()) return;
  Scratch scratch(memory);
  const OutputScratch<T> own(scratch, args);
  chunk_outputs<Element>(args, chunk, forward_rows<Element>(args, chunk, own),
                         state_at<T>(args, args.states, chunk.slot, chunk.index), own);
}

}  // namespace
}  // namespace attend::cpu
