#include "cpu/linear_attention/linear_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "cpu/linear_attention/kernel.h"
#include "cpu/runtime/tasks.h"
#include "cpu/runtime/tensor_view.h"
#include "cpu/simd/sizes.h"

namespace attend::cpu {
namespace {

/// The limit of the size of the buffers of the resident chunks, so that the buffers stay in the caches. It is
/// exceeded where threads would otherwise have no work.
constexpr int64_t kCacheBytes = int64_t{2} << 20;

/// The number of resident chunks of a head in the parallel forward. It is larger where threads would
/// otherwise have no work.
constexpr int64_t kParallelChunks = 32;

/// The number of heads from which on the forward is sequential. The choice does not depend on the number of
/// threads, since the results of the two schedules differ in rounding.
constexpr int64_t kMinSequentialHeads = 8;

/// If the states of all heads have fewer elements than this, a step is faster on one thread.
constexpr int64_t kMaxSerialState = int64_t{1} << 16;

KernelFeatureMap kernel_feature_map(FeatureMap map) {
  switch (map) {
    case FeatureMap::elu_plus_one:
      return KernelFeatureMap::elu_plus_one;
    case FeatureMap::relu:
      return KernelFeatureMap::relu;
    default:
      return KernelFeatureMap::identity;
  }
}

/// Returns the log decay as [B, H, Lk, 1 or D] with contiguous rows; undefined without decays.
at::Tensor contiguous_decay(const LinearAttentionCall& call) {
  const auto decay = decay_per_step(call.log_decay, call);
  return decay.defined() ? with_contiguous_rows(decay) : decay;
}

/// The tensors of a call with contiguous rows, and the kernels for its element type.
struct KernelInputs {
  at::Tensor query, key, value, log_decay, beta, initial_state, lengths;
  at::TensorOptions options;  ///< the options of accumulators and states
  const LinearAttentionKernels& kernels;

  explicit KernelInputs(const LinearAttentionCall& call)
      : query(with_contiguous_rows(call.query)),
        key(with_contiguous_rows(call.key)),
        value(with_contiguous_rows(call.value)),
        log_decay(contiguous_decay(call)),
        beta(call.beta.defined() ? call.beta.unsqueeze(-1) : call.beta),
        initial_state(call.initial_state.defined() ? call.initial_state.contiguous() : call.initial_state),
        lengths(call.key_lengths),
        options(query.options().dtype(compute_type(query))),
        kernels(linear_attention_kernels(element_type(query))) {}

  void fill(const LinearAttentionCall& call, LinearArgs& args) const {
    args.query = strided_tensor(query);
    args.key = strided_tensor(key);
    args.value = strided_tensor(value);
    args.decay_width = log_decay.defined() ? log_decay.size(3) : 0;
    if (log_decay.defined()) args.log_decay = strided_tensor(log_decay);
    args.has_beta = beta.defined();
    if (beta.defined()) args.beta = strided_tensor(beta);
    args.key_lengths = lengths.defined() ? lengths.const_data_ptr<int64_t>() : nullptr;
    args.batch = query.size(0);
    args.heads = query.size(1);
    args.kv_heads = key.size(1);
    args.queries = query.size(2);
    args.keys = key.size(2);
    args.d = query.size(3);
    args.d_v = value.size(3);
    args.feature_map = kernel_feature_map(call.feature_map);
    args.normalize = call.normalize;
    args.scale = call.scale;
    args.chunk_steps = kMaxChunk;
  }
};

/// The buffers for the resident chunks of the resident heads.
struct ResidentChunks {
  const KernelInputs& inputs;
  const LinearArgs& args;
  int64_t heads;
  at::Tensor states, grad_states, chunk_decays;
  /// Undefined without the delta rule.
  at::Tensor from_start, to_end, products, system, written, grad_written;

  ResidentChunks(const KernelInputs& inputs_, const LinearArgs& args_, bool for_backward)
      : inputs(inputs_), args(args_), heads(resident_heads(for_backward)) {
    states = per_head(args.resident_chunks + 1, args.d, args.state_width());
    chunk_decays = per_head(args.resident_chunks, 1, args.decay_width);
    if (for_backward) grad_states = at::empty_like(states);
    if (!args.has_delta_rule()) return;
    from_start = per_head(args.resident_chunks, kMaxChunk, args.d);
    to_end = args.decay_width == 0 ? from_start : at::empty_like(from_start);
    system = per_head(args.resident_chunks, kMaxChunk, kMaxChunk);
    written = per_head(args.resident_chunks, kMaxChunk, args.state_width());
    if (!for_backward) return;
    products = at::empty_like(system);
    grad_written = at::empty_like(written);
  }

  DeltaChunks delta() const {
    return {.from_start = data_of(from_start),
            .to_end = data_of(to_end),
            .products = data_of(products),
            .system = data_of(system),
            .written = data_of(written),
            .grad_written = data_of(grad_written)};
  }

 private:
  at::Tensor per_head(int64_t count, int64_t rows, int64_t columns) const {
    return at::empty({heads, count, rows, round_up(columns, inputs.kernels.lanes)}, inputs.options);
  }

  /// Returns the number of heads in a group. The results of a call do not depend on it.
  int64_t resident_heads(bool for_backward) const {
    const int64_t width = round_up(args.state_width(), inputs.kernels.lanes);
    int64_t chunk_elements = args.d * width * (for_backward ? 2 : 1);
    if (args.has_delta_rule())
      chunk_elements += kMaxChunk * (2 * args.d + (kMaxChunk + width) * (for_backward ? 2 : 1));
    const int64_t head_bytes =
        args.resident_chunks * chunk_elements * static_cast<int64_t>(inputs.options.dtype().itemsize());
    const int64_t heads_for_threads = divide_up(at::get_num_threads(), tasks_per_head());
    const int64_t at_least = std::max(kCacheBytes / std::max<int64_t>(head_bytes, 1), heads_for_threads);
    return std::max<int64_t>(1, std::min(at_least, args.batch * args.heads));
  }
  /// Returns the number of tasks in the scan of one head; at least 1, though values of zero columns have no
  /// blocks.
  int64_t tasks_per_head() const {
    const auto& kernels = inputs.kernels;
    return std::max<int64_t>(1,
                             args.has_delta_rule() ? kernels.column_blocks(args) : kernels.row_blocks(args));
  }
};

/// Calls action(n) for each group of n resident heads, with args.first_head set.
template <typename Action>
void for_each_head_group(LinearArgs& args, int64_t group_size, Action action) {
  const int64_t heads = args.batch * args.heads;
  for (args.first_head = 0; args.first_head < heads; args.first_head += group_size) {
    action(std::min(group_size, heads - args.first_head));
  }
}

/// Calls action() for each group of resident chunks. The initial states of a group are the final states of
/// the previous group.
template <typename Action>
void for_each_chunk_group(LinearArgs& args, int64_t group_size, Action action) {
  const void* const initial = args.states.initial;
  args.first_chunk = 0;
  do {
    args.resident_chunks = std::min(group_size, args.chunks() - args.first_chunk);
    action();
    args.states.initial = args.states.final;
    args.first_chunk += group_size;
  } while (args.first_chunk < args.chunks());
  args.states.initial = initial;
}

void compute_states(const LinearAttentionKernels& kernels, const LinearArgs& args, int64_t heads) {
  const int64_t bytes = kernels.forward_scratch_bytes(args);
  if (args.has_delta_rule()) {
    run_tasks(heads * args.resident_chunks, bytes,
              [&](int64_t task, void* scratch) { kernels.prepare_delta(args, task, scratch); });
    run_tasks(heads * kernels.column_blocks(args), bytes,
              [&](int64_t task, void* scratch) { kernels.scan_delta_states(args, task, scratch); });
    return;
  }
  run_tasks(heads * args.resident_chunks, bytes,
            [&](int64_t task, void* scratch) { kernels.add_to_state(args, task, scratch); });
  run_tasks(heads * kernels.row_blocks(args), 0,
            [&](int64_t task, void*) { kernels.scan_states(args, args.states, task); });
}

void compute_grad_states(const LinearAttentionKernels& kernels, const LinearBackwardArgs& args,
                         int64_t heads) {
  const int64_t bytes = kernels.backward_scratch_bytes(args);
  if (args.has_delta_rule()) {
    run_tasks(heads * args.resident_chunks, bytes,
              [&](int64_t task, void* scratch) { kernels.prepare_grad_delta(args, task, scratch); });
    run_tasks(heads * kernels.column_blocks(args), bytes,
              [&](int64_t task, void* scratch) { kernels.scan_delta_grad_states(args, task, scratch); });
    return;
  }
  run_tasks(heads * args.resident_chunks, bytes,
            [&](int64_t task, void* scratch) { kernels.add_to_grad_state(args, task, scratch); });
  run_tasks(heads * kernels.row_blocks(args), 0,
            [&](int64_t task, void*) { kernels.scan_states(args, args.grad_states, task); });
}

/// Sums the gradients over the query heads that share a key/value head.
at::Tensor sum_over_groups(const at::Tensor& per_head, const at::Tensor& like) {
  if (!per_head.defined()) return {};
  const int64_t heads = per_head.size(1), kv_heads = like.size(1);
  if (heads == kv_heads) return per_head.to(like.scalar_type());
  const auto grouped = per_head.view({like.size(0), kv_heads, heads / kv_heads, like.size(2), like.size(3)});
  return grouped.sum(2).to(like.scalar_type());
}

/// Sums [B, H, Lk, 1] to [H]. ATen divides a single sum among the threads, which changes its bits, but does
/// not divide two or more sums. Therefore a single head is expanded to two.
at::Tensor sum_per_head(const at::Tensor& per_step) {
  const auto rows = per_step.transpose(0, 1).flatten(1);
  return rows.size(0) == 1 ? rows.expand({2, -1}).sum(1).narrow(0, 0, 1) : rows.sum(1);
}

/// Returns the gradients [B, H, Lk, 1 or D] in the shape in which the decay was given.
at::Tensor reshape_decay_gradient(const at::Tensor& per_step, const at::Tensor& decay) {
  return decay.dim() == 1 ? sum_per_head(per_step) : per_step.view(decay.sizes());
}

/// Whether `tasks` tasks of equal duration leave no thread idle for long.
bool keeps_threads_busy(int64_t tasks) {
  const int64_t threads = at::get_num_threads();
  return tasks % threads == 0 || tasks >= 4 * threads;
}

/// Returns the number of columns of the values in a task: all columns, or the largest number of whole vectors
/// that keeps the threads busy.
int64_t columns_per_task(const LinearArgs& args, int64_t lanes) {
  const int64_t heads = args.batch * args.heads, all_columns = std::max(round_up(args.d_v, lanes), lanes);
  int64_t columns = all_columns;
  while (columns > lanes && !keeps_threads_busy(heads * divide_up(all_columns, columns))) columns -= lanes;
  return columns;
}

/// Runs the sequential schedule. A task is a head, or some columns of the values of a head.
void forward_sequential(const KernelInputs& inputs, LinearForwardArgs& args) {
  const auto& kernels = inputs.kernels;
  args.chunk_steps = kSequentialChunk;
  const int64_t columns = columns_per_task(args, kernels.lanes);
  const int64_t parts = std::max<int64_t>(1, divide_up(args.d_v, columns));
  run_tasks(args.batch * args.heads * parts, kernels.head_forward_scratch_bytes(args),
            [&](int64_t task, void* scratch) {
              const int64_t first = task % parts * columns;
              kernels.head_forward(args, task / parts,
                                   {.first = first, .count = std::min(columns, args.d_v - first)}, scratch);
            });
}

/// Runs the parallel schedule. A task is a chunk.
void forward_parallel(const KernelInputs& inputs, LinearForwardArgs& args) {
  const auto& kernels = inputs.kernels;
  const int64_t for_threads = int64_t{4} * at::get_num_threads() / (args.batch * args.heads);
  const int64_t chunks = std::min(args.chunks(), std::max(kParallelChunks, for_threads));
  args.resident_chunks = chunks;
  const ResidentChunks resident(inputs, args, /*for_backward=*/false);
  args.states.data = resident.states.data_ptr();
  args.chunk_decays = resident.chunk_decays.data_ptr();
  args.delta = resident.delta();
  for_each_head_group(args, resident.heads, [&](int64_t heads) {
    for_each_chunk_group(args, chunks, [&] {
      compute_states(kernels, args, heads);
      if (args.queries == 0) return;
      run_tasks(heads * args.resident_chunks, kernels.forward_scratch_bytes(args),
                [&](int64_t task, void* scratch) { kernels.chunk_forward(args, task, scratch); });
    });
  });
}

/// Whether the backward is sequential. Both schedules give the same bits. The sequential one is chosen if it
/// keeps the threads busy, and its scratch memory beyond the caches is not larger than the gradients.
bool is_backward_sequential(const KernelInputs& inputs, const LinearArgs& args) {
  const int64_t heads = args.batch * args.heads, threads = at::get_num_threads();
  const int64_t gradients = heads * (args.queries * args.d + args.keys * (args.d + args.d_v)) *
                            static_cast<int64_t>(inputs.options.dtype().itemsize());
  const int64_t beyond_caches = inputs.kernels.head_backward_scratch_bytes(args) - kCacheBytes;
  return threads == 1 || (keeps_threads_busy(heads) && threads * beyond_caches <= gradients);
}

/// Runs the sequential schedule. A task is a head.
void backward_sequential(const KernelInputs& inputs, const LinearBackwardArgs& args) {
  const auto& kernels = inputs.kernels;
  run_tasks(args.batch * args.heads, kernels.head_backward_scratch_bytes(args),
            [&](int64_t head, void* scratch) { kernels.head_backward(args, head, scratch); });
}

/// Runs the parallel schedule, with all chunks of a head resident.
void backward_parallel(const KernelInputs& inputs, LinearBackwardArgs& args) {
  const auto& kernels = inputs.kernels;
  args.resident_chunks = args.chunks();
  const ResidentChunks resident(inputs, args, /*for_backward=*/true);
  args.states.data = resident.states.data_ptr();
  args.grad_states.data = resident.grad_states.data_ptr();
  args.chunk_decays = resident.chunk_decays.data_ptr();
  args.delta = resident.delta();
  for_each_head_group(args, resident.heads, [&](int64_t heads) {
    if (args.needs_states()) compute_states(kernels, args, heads);
    if (args.needs_grad_states()) compute_grad_states(kernels, args, heads);
    run_tasks(heads * args.resident_chunks, kernels.backward_scratch_bytes(args),
              [&](int64_t task, void* scratch) { kernels.chunk_backward(args, task, scratch); });
  });
}

}  // namespace

LinearAttentionOutputs linear_attention(const LinearAttentionCall& call, bool for_backward) {
  const KernelInputs inputs(call);
  LinearForwardArgs args{};
  inputs.fill(call, args);
  LinearAttentionOutputs outputs{
      .output = at::empty({args.batch, args.heads, args.queries, args.d_v}, call.query.options()),
      .final_state = at::empty({args.batch, args.heads, args.d, args.state_width()}, inputs.options),
      .normaliser = {},
      .unrounded = {}};
  if (for_backward && call.normalize) {
    outputs.normaliser = at::empty({args.batch, args.heads, args.queries}, inputs.options);
    outputs.unrounded = outputs.output.scalar_type() == call.compute_type()
                            ? outputs.output
                            : at::empty(outputs.output.sizes(), inputs.options);
  }
  if (args.batch * args.heads == 0) return outputs;

  args.states = {.data = nullptr,
                 .initial = data_of(inputs.initial_state),
                 .final = outputs.final_state.data_ptr(),
                 .from_end = false};
  args.output = strided_tensor(outputs.output);
  args.normaliser = data_of(outputs.normaliser);
  if (outputs.unrounded.defined()) args.unrounded = strided_tensor(outputs.unrounded);
  if (args.batch * args.heads >= kMinSequentialHeads) {
    forward_sequential(inputs, args);
  } else {
    forward_parallel(inputs, args);
  }
  return outputs;
}

at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state) {
  const KernelInputs inputs(call);
  LinearForwardArgs args{};
  inputs.fill(call, args);
  const auto output = at::empty({args.batch, args.heads, 1, args.d_v}, call.query.options());
  if (args.batch * args.heads == 0) return output;
  args.resident_chunks = 1;
  args.states.data = state.data_ptr();
  args.output = strided_tensor(output);
  const bool is_serial = state.numel() < kMaxSerialState;
  run_tasks(is_serial ? 1 : args.batch * args.heads, inputs.kernels.step_scratch_bytes(args),
            [&](int64_t task, void* scratch) {
              for (int64_t head = task; head < (is_serial ? args.batch * args.heads : task + 1); ++head) {
                inputs.kernels.step(args, head, scratch);
              }
            });
  return output;
}

LinearAttentionGradients linear_attention_backward(const LinearAttentionCall& call,
                                                   const LinearAttentionOutputs& outputs,
                                                   const at::Tensor& grad_output,
                                                   const at::Tensor& grad_final_state,
                                                   at::ArrayRef<bool> wanted) {
  const KernelInputs inputs(call);
  LinearBackwardArgs args{};
  inputs.fill(call, args);
  const auto grad = grad_output.defined()
                        ? with_contiguous_rows(grad_output)
                        : at::zeros({args.batch, args.heads, args.queries, args.d_v}, call.query.options());
  const auto grad_final = grad_final_state.defined() ? grad_final_state.contiguous() : at::Tensor();
  const auto per_head = [&](int64_t length, int64_t width) {
    return at::empty({args.batch, args.heads, length, width}, inputs.options);
  };
  auto next = wanted.begin();
  const auto if_wanted = [&](const at::Tensor& input, int64_t length, int64_t width) {
    return input.defined() && *next++ ? per_head(length, width) : at::Tensor();
  };
  const auto query = if_wanted(call.query, args.queries, args.d);
  const auto key = if_wanted(call.key, args.keys, args.d);
  const auto value = if_wanted(call.value, args.keys, args.d_v);
  const auto log_decay = if_wanted(call.log_decay, args.keys, args.decay_width);
  const auto beta = if_wanted(call.beta, args.keys, 1);
  const auto initial_state = if_wanted(call.initial_state, args.d, args.state_width());
  if (args.batch * args.heads > 0) {
    args.states = {
        .data = nullptr, .initial = data_of(inputs.initial_state), .final = nullptr, .from_end = false};
    args.grad_states = {
        .data = nullptr, .initial = data_of(grad_final), .final = data_of(initial_state), .from_end = true};
    if (outputs.unrounded.defined()) args.unrounded = strided_tensor(outputs.unrounded);
    args.grad_output = strided_tensor(grad);
    args.normaliser = data_of(outputs.normaliser);
    if (query.defined()) args.grad_query = strided_tensor(query);
    if (key.defined()) args.grad_key = strided_tensor(key);
    if (value.defined()) args.grad_value = strided_tensor(value);
    args.grad_log_decay = data_of(log_decay);
    args.grad_beta = data_of(beta);
    if (is_backward_sequential(inputs, args)) {
      backward_sequential(inputs, args);
    } else {
      backward_parallel(inputs, args);
    }
  }
  return {.query = query.defined() ? query.to(call.query.scalar_type()) : query,
          .key = sum_over_groups(key, call.key),
          .value = sum_over_groups(value, call.value),
          .log_decay = log_decay.defined() ? reshape_decay_gradient(log_decay, call.log_decay) : at::Tensor(),
          .beta = beta.defined() ? beta.squeeze(-1) : at::Tensor(),
          .initial_state = initial_state};
}

}  // namespace attend::cpu
