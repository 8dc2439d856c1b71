#include "cpu/linear_attention/linear_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "cpu/linear_attention/kernel.h"
#include "cpu/runtime/tasks.h"
#include "cpu/runtime/tensor_view.h"

namespace attend::cpu {
namespace {

/// What may be held of the heads that are worked on at once, so that it stays in the caches, where they are
/// enough for all threads.
constexpr int64_t kHeldBytes = int64_t{2} << 20;

/// Chunks of a head that the forward works on at once, where they are enough for all threads.
constexpr int64_t kHeldChunks = 32;

/// From so many heads each goes from chunk to chunk by itself. Whatever the threads, since the results of the
/// two ways differ by their roundings.
constexpr int64_t kManyHeads = 8;

/// Elements of the states of all heads below which a step is over before a second thread has begun.
constexpr int64_t kShortState = int64_t{1} << 16;

KernelFeatureMap kernel_map(FeatureMap map) {
  switch (map) {
    case FeatureMap::elu_plus_one:
      return KernelFeatureMap::elu_plus_one;
    case FeatureMap::relu:
      return KernelFeatureMap::relu;
    default:
      return KernelFeatureMap::identity;
  }
}

/// [B, H, Lk, 1 or D], rows contiguous.
at::Tensor decay_of_steps(const LinearAttentionCall& call) {
  const auto& decay = call.log_decay;
  if (!decay.defined() || decay.dim() == 4) return decay.defined() ? with_contiguous_rows(decay) : decay;
  if (decay.dim() == 3) return decay.unsqueeze(-1);
  return decay.view({1, -1, 1, 1}).expand({call.query.size(0), decay.size(0), call.key.size(2), 1});
}

/// The call with every tensor's rows contiguous, and memory for the states.
struct Bound {
  at::Tensor query, key, value, log_decay, beta, initial_state, lengths;
  at::TensorOptions options;  ///< of sums and states
  const LinearAttentionKernels& kernels;

  explicit Bound(const LinearAttentionCall& call)
      : query(with_contiguous_rows(call.query)),
        key(with_contiguous_rows(call.key)),
        value(with_contiguous_rows(call.value)),
        log_decay(decay_of_steps(call)),
        beta(call.beta.defined() ? call.beta.unsqueeze(-1) : call.beta),
        initial_state(call.initial_state.defined() ? call.initial_state.contiguous() : call.initial_state),
        lengths(call.key_lengths),
        options(query.options().dtype(compute_type(query))),
        kernels(linear_attention_kernels(element_type(query))) {}

  void describe(const LinearAttentionCall& call, LinearArgs& args) const {
    args.query = heads_of(query);
    args.key = heads_of(key);
    args.value = heads_of(value);
    args.decay_width = log_decay.defined() ? log_decay.size(3) : 0;
    if (log_decay.defined()) args.log_decay = heads_of(log_decay);
    args.has_beta = beta.defined();
    if (beta.defined()) args.beta = heads_of(beta);
    args.key_lengths = lengths.defined() ? lengths.const_data_ptr<int64_t>() : nullptr;
    args.batch = query.size(0);
    args.heads = query.size(1);
    args.kv_heads = key.size(1);
    args.queries = query.size(2);
    args.keys = key.size(2);
    args.d = query.size(3);
    args.d_v = value.size(3);
    args.feature_map = kernel_map(call.feature_map);
    args.normalize = call.normalize;
    args.scale = call.scale;
    args.chunk_steps = kChunk;
  }
};

/// What is held of the heads that are worked on at once.
struct Held {
  const Bound& bound;
  const LinearArgs& args;
  int64_t heads;
  at::Tensor states, grad_states, chunk_decays;
  at::Tensor from_start, to_end, products, system, written, grad_written;  ///< with the delta rule

  Held(const Bound& bound_, const LinearArgs& args_, bool for_backward)
      : bound(bound_), args(args_), heads(heads_at_once(for_backward)) {
    states = per_head(args.held_chunks + 1, args.d, args.state_width());
    chunk_decays = per_head(args.held_chunks, 1, args.decay_width);
    if (for_backward) grad_states = at::empty_like(states);
    if (!args.has_delta_rule()) return;
    from_start = per_head(args.held_chunks, kChunk, args.d);
    to_end = args.decay_width == 0 ? from_start : at::empty_like(from_start);
    system = per_head(args.held_chunks, kChunk, kChunk);
    written = per_head(args.held_chunks, kChunk, args.state_width());
    if (!for_backward) return;
    products = at::empty_like(system);
    grad_written = at::empty_like(written);
  }

  DeltaChunks delta() const {
    return {data_of(from_start), data_of(to_end),  data_of(products),
            data_of(system),     data_of(written), data_of(grad_written)};
  }

 private:
  at::Tensor per_head(int64_t count, int64_t rows, int64_t columns) const {
    return at::empty({heads, count, rows, padded(columns, bound.kernels.lanes)}, bound.options);
  }

  /// Which head is worked on with which others does not change its result.
  int64_t heads_at_once(bool for_backward) const {
    const int64_t width = padded(args.state_width(), bound.kernels.lanes);
    int64_t of_chunk = args.d * width * (for_backward ? 2 : 1);
    if (args.has_delta_rule()) of_chunk += kChunk * (2 * args.d + (kChunk + width) * (for_backward ? 2 : 1));
    const int64_t of_head =
        args.held_chunks * of_chunk * static_cast<int64_t>(bound.options.dtype().itemsize());
    const int64_t of_threads = (at::get_num_threads() + least_tasks() - 1) / least_tasks();
    const int64_t at_least = std::max(kHeldBytes / std::max<int64_t>(of_head, 1), of_threads);
    return std::max<int64_t>(1, std::min(at_least, args.batch * args.heads));
  }
  /// Of a head; values of no columns have no blocks of them.
  int64_t least_tasks() const {
    const auto& kernels = bound.kernels;
    return std::max<int64_t>(1,
                             args.has_delta_rule() ? kernels.column_blocks(args) : kernels.row_blocks(args));
  }
};

/// Calls action(number of heads) for as many heads as are worked on at once, and the next.
template <typename Action>
void for_heads(LinearArgs& args, int64_t at_once, Action action) {
  const int64_t heads = args.batch * args.heads;
  for (args.first_head = 0; args.first_head < heads; args.first_head += at_once) {
    action(std::min(at_once, heads - args.first_head));
  }
}

/// Calls action() for as many chunks as are worked on at once, and the next, which go on from the final
/// states of those before them.
template <typename Action>
void for_chunks(LinearArgs& args, int64_t at_once, Action action) {
  const void* const initial = args.states.initial;
  args.first_chunk = 0;
  do {
    args.held_chunks = std::min(at_once, args.chunks() - args.first_chunk);
    action();
    args.states.initial = args.states.final;
    args.first_chunk += at_once;
  } while (args.first_chunk < args.chunks());
  args.states.initial = initial;
}

void run_states(const LinearAttentionKernels& kernels, const LinearArgs& args, int64_t heads) {
  const int64_t bytes = kernels.scratch(args);
  if (args.has_delta_rule()) {
    run_tasks(heads * args.held_chunks, bytes,
              [&](int64_t task, void* scratch) { kernels.prepare_delta(args, task, scratch); });
    run_tasks(heads * kernels.column_blocks(args), bytes,
              [&](int64_t task, void* scratch) { kernels.delta_states(args, task, scratch); });
    return;
  }
  run_tasks(heads * args.held_chunks, bytes,
            [&](int64_t task, void* scratch) { kernels.add_to_state(args, task, scratch); });
  run_tasks(heads * kernels.row_blocks(args), 0,
            [&](int64_t task, void*) { kernels.join_states(args, args.states, task); });
}

void run_grad_states(const LinearAttentionKernels& kernels, const LinearBackwardArgs& args, int64_t heads) {
  const int64_t bytes = kernels.backward_scratch(args);
  if (args.has_delta_rule()) {
    run_tasks(heads * args.held_chunks, bytes,
              [&](int64_t task, void* scratch) { kernels.prepare_grad_delta(args, task, scratch); });
    run_tasks(heads * kernels.column_blocks(args), bytes,
              [&](int64_t task, void* scratch) { kernels.delta_grad_states(args, task, scratch); });
    return;
  }
  run_tasks(heads * args.held_chunks, bytes,
            [&](int64_t task, void* scratch) { kernels.add_to_grad_state(args, task, scratch); });
  run_tasks(heads * kernels.row_blocks(args), 0,
            [&](int64_t task, void*) { kernels.join_states(args, args.grad_states, task); });
}

/// Sums those of the heads that share a key.
at::Tensor sum_groups(const at::Tensor& of_heads, const at::Tensor& like) {
  const int64_t heads = of_heads.size(1), kv_heads = like.size(1);
  if (heads == kv_heads) return of_heads.to(like.scalar_type());
  const auto grouped = of_heads.view({like.size(0), kv_heads, heads / kv_heads, like.size(2), like.size(3)});
  return grouped.sum(2).to(like.scalar_type());
}

/// [H] of [B, H, Lk, 1]. ATen shares a sum that is the only one among the threads, which changes its bits: of
/// two, each has one.
at::Tensor sum_of_heads(const at::Tensor& of_steps) {
  const auto rows = of_steps.transpose(0, 1).flatten(1);
  return rows.size(0) == 1 ? rows.expand({2, -1}).sum(1).narrow(0, 0, 1) : rows.sum(1);
}

/// In the shape that the decay was given in.
at::Tensor of_decay_shape(const at::Tensor& of_steps, const at::Tensor& decay) {
  return decay.dim() == 1 ? sum_of_heads(of_steps) : of_steps.view(decay.sizes());
}

/// Whether so many tasks of one length leave no thread without work for long.
bool keep_threads_busy(int64_t tasks) {
  const int64_t threads = at::get_num_threads();
  return tasks % threads == 0 || tasks >= 4 * threads;
}

/// Columns of a head's values that are a task: all of them, or as many whole vectors as keep threads busy.
int64_t columns_of_task(const LinearArgs& args, int64_t lanes) {
  const int64_t heads = args.batch * args.heads, all = std::max(padded(args.d_v, lanes), lanes);
  int64_t columns = all;
  while (columns > lanes && !keep_threads_busy(heads * ((all + columns - 1) / columns))) columns -= lanes;
  return columns;
}

/// Chunk after chunk of a head.
void outputs_of_heads(const Bound& bound, LinearForwardArgs& args) {
  const auto& kernels = bound.kernels;
  args.chunk_steps = kHeadChunk;
  const int64_t columns = columns_of_task(args, kernels.lanes);
  const int64_t parts = std::max<int64_t>(1, (args.d_v + columns - 1) / columns);
  run_tasks(args.batch * args.heads * parts, kernels.head_scratch(args), [&](int64_t task, void* scratch) {
    const int64_t first = task % parts * columns;
    kernels.outputs_of_head(args, task / parts, {first, std::min(columns, args.d_v - first)}, scratch);
  });
}

/// Many chunks of a head at once.
void outputs_of_chunks(const Bound& bound, LinearForwardArgs& args) {
  const auto& kernels = bound.kernels;
  const int64_t for_threads = int64_t{4} * at::get_num_threads() / (args.batch * args.heads);
  const int64_t chunks = std::min(args.chunks(), std::max(kHeldChunks, for_threads));
  args.held_chunks = chunks;
  const Held held(bound, args, /*for_backward=*/false);
  args.states.data = held.states.data_ptr();
  args.chunk_decays = held.chunk_decays.data_ptr();
  args.delta = held.delta();
  for_heads(args, held.heads, [&](int64_t heads) {
    for_chunks(args, chunks, [&] {
      run_states(kernels, args, heads);
      if (args.queries == 0) return;
      run_tasks(heads * args.held_chunks, kernels.scratch(args),
                [&](int64_t task, void* scratch) { kernels.outputs(args, task, scratch); });
    });
  });
}

/// Whether the gradients go from chunk to chunk of a head, which gives the same bits as many chunks at once:
/// where that keeps the threads busy, and beyond the caches they hold no more than the gradients take.
bool has_gradients_of_heads(const Bound& bound, const LinearArgs& args) {
  const int64_t heads = args.batch * args.heads, threads = at::get_num_threads();
  const int64_t gradients = heads * (args.queries * args.d + args.keys * (args.d + args.d_v)) *
                            static_cast<int64_t>(bound.options.dtype().itemsize());
  const int64_t held = bound.kernels.head_backward_scratch(args) - kHeldBytes;
  return threads == 1 || (keep_threads_busy(heads) && threads * held <= gradients);
}

/// Chunk after chunk of a head.
void gradients_of_heads(const Bound& bound, const LinearBackwardArgs& args) {
  const auto& kernels = bound.kernels;
  run_tasks(args.batch * args.heads, kernels.head_backward_scratch(args),
            [&](int64_t head, void* scratch) { kernels.gradients_of_head(args, head, scratch); });
}

/// All chunks of a head at once.
void gradients_of_chunks(const Bound& bound, LinearBackwardArgs& args) {
  const auto& kernels = bound.kernels;
  args.held_chunks = args.chunks();
  const Held held(bound, args, /*for_backward=*/true);
  args.states.data = held.states.data_ptr();
  args.grad_states.data = held.grad_states.data_ptr();
  args.chunk_decays = held.chunk_decays.data_ptr();
  args.delta = held.delta();
  for_heads(args, held.heads, [&](int64_t heads) {
    run_states(kernels, args, heads);
    run_grad_states(kernels, args, heads);
    run_tasks(heads * args.held_chunks, kernels.backward_scratch(args),
              [&](int64_t task, void* scratch) { kernels.gradients(args, task, scratch); });
  });
}

}  // namespace

LinearAttentionOutputs linear_attention(const LinearAttentionCall& call, bool for_backward) {
  const Bound bound(call);
  LinearForwardArgs args{};
  bound.describe(call, args);
  LinearAttentionOutputs outputs{
      at::empty({args.batch, args.heads, args.queries, args.d_v}, call.query.options()),
      at::empty({args.batch, args.heads, args.d, args.state_width()}, bound.options),
      {},
      {}};
  if (for_backward && call.normalize) {
    outputs.normaliser = at::empty({args.batch, args.heads, args.queries}, bound.options);
    outputs.unrounded = outputs.output.scalar_type() == call.compute_type()
                            ? outputs.output
                            : at::empty(outputs.output.sizes(), bound.options);
  }
  if (args.batch * args.heads == 0) return outputs;

  args.states = {nullptr, data_of(bound.initial_state), outputs.final_state.data_ptr(), false};
  args.output = heads_of(outputs.output);
  args.normaliser = data_of(outputs.normaliser);
  if (outputs.unrounded.defined()) args.unrounded = heads_of(outputs.unrounded);
  if (args.batch * args.heads >= kManyHeads) {
    outputs_of_heads(bound, args);
  } else {
    outputs_of_chunks(bound, args);
  }
  return outputs;
}

at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state) {
  const Bound bound(call);
  LinearForwardArgs args{};
  bound.describe(call, args);
  const auto output = at::empty({args.batch, args.heads, 1, args.d_v}, call.query.options());
  if (args.batch * args.heads == 0) return output;
  args.held_chunks = 1;
  args.states.data = state.data_ptr();
  args.output = heads_of(output);
  const bool is_short = state.numel() < kShortState;
  run_tasks(is_short ? 1 : args.batch * args.heads, bound.kernels.step_scratch(args),
            [&](int64_t task, void* scratch) {
              for (int64_t head = task; head < (is_short ? args.batch * args.heads : task + 1); ++head) {
                bound.kernels.step(args, head, scratch);
              }
            });
  return output;
}

LinearAttentionGradients linear_attention_backward(const LinearAttentionCall& call,
                                                   const LinearAttentionOutputs& outputs,
                                                   const at::Tensor& grad_output,
                                                   const at::Tensor& grad_final_state) {
  const Bound bound(call);
  LinearBackwardArgs args{};
  bound.describe(call, args);
  const auto grad = grad_output.defined()
                        ? with_contiguous_rows(grad_output)
                        : at::zeros({args.batch, args.heads, args.queries, args.d_v}, call.query.options());
  const auto grad_final = grad_final_state.defined() ? grad_final_state.contiguous() : at::Tensor();
  const auto of_heads = [&](int64_t length, int64_t width) {
    return at::empty({args.batch, args.heads, length, width}, bound.options);
  };
  const auto query = of_heads(args.queries, args.d), key = of_heads(args.keys, args.d),
             value = of_heads(args.keys, args.d_v), log_decay = of_heads(args.keys, args.decay_width),
             beta = of_heads(args.keys, 1), initial_state = of_heads(args.d, args.state_width());
  if (args.batch * args.heads > 0) {
    args.states = {nullptr, data_of(bound.initial_state), nullptr, false};
    args.grad_states = {nullptr, data_of(grad_final), initial_state.data_ptr(), true};
    if (outputs.unrounded.defined()) args.unrounded = heads_of(outputs.unrounded);
    args.grad_output = heads_of(grad);
    args.normaliser = data_of(outputs.normaliser);
    args.grad_query = heads_of(query);
    args.grad_key = heads_of(key);
    args.grad_value = heads_of(value);
    args.grad_log_decay = log_decay.data_ptr();
    args.grad_beta = beta.data_ptr();
    if (has_gradients_of_heads(bound, args)) {
      gradients_of_heads(bound, args);
    } else {
      gradients_of_chunks(bound, args);
    }
  }
  return {query.to(call.query.scalar_type()),
          sum_groups(key, call.key),
          sum_groups(value, call.value),
          call.log_decay.defined() ? of_decay_shape(log_decay, call.log_decay) : at::Tensor(),
          call.beta.defined() ? beta.squeeze(-1) : at::Tensor(),
          call.initial_state.defined() ? initial_state : at::Tensor()};
}

}  // namespace attend::cpu
