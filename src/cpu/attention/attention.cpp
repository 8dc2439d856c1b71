#include "cpu/attention/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "core/philox.h"
#include "cpu/attention/kernel.h"
#include "cpu/mask/make_tiles.h"
#include "cpu/runtime/tasks.h"
#include "cpu/runtime/tensor_view.h"
#include "cpu/score_mod/make_tiles.h"
#include "cpu/simd/sizes.h"

namespace attend::cpu {
namespace {

/// The number of tasks to aim for, sufficient for a large machine. It does not depend on the number of
/// threads, since the results must not.
constexpr int64_t kTargetTasks = 16;
/// Limits of the number of splits in a backward, and of the total number of elements that the splits store:
/// each split stores gradients of all queries.
constexpr int64_t kMaxBackwardSplits = 8, kMaxSplitElements = int64_t{1} << 27;

KernelWeighting kernel_weighting(Weighting weighting) {
  switch (weighting) {
    case Weighting::sigmoid:
      return KernelWeighting::sigmoid;
    case Weighting::relu:
      return KernelWeighting::relu;
    case Weighting::softmax:
      break;
  }
  return KernelWeighting::softmax;
}

/// The tensors of a call with contiguous rows, and the tiles of its mask and score modification.
struct KernelInputs {
  at::Tensor query, key, value;
  MaskStates mask_states;
  std::unique_ptr<MaskTiles> mask;
  std::unique_ptr<DifferentiableScoreTiles> score_mod;

  /// `known_mask_states` holds the mask states from an earlier pass over the same call, or is empty.
  explicit KernelInputs(const AttentionCall& call, std::vector<at::Tensor> known_mask_states)
      : query(with_contiguous_rows(call.query)),
        key(with_contiguous_rows(call.key)),
        value(with_contiguous_rows(call.value)),
        mask_states(std::move(known_mask_states)),
        mask(make_mask_tiles(call.mask, call.shape(), call.query_dim, mask_states)),
        score_mod(make_score_tiles(call.score_mod, call.shape(), call.query_dim, compute_type(query))) {}

  void fill(const AttentionCall& call, AttentionArgs& args) const {
    args.query = strided_tensor(query);
    args.key = strided_tensor(key);
    args.value = strided_tensor(value);
    args.batch = query.size(0);
    args.heads = query.size(1);
    args.kv_heads = key.size(1);
    args.queries = query.size(2);
    args.keys = key.size(2);
    args.d = query.size(3);
    args.d_v = value.size(3);
    args.scale = call.scale;
    args.weighting = kernel_weighting(call.weighting);
    args.mask = mask.get();
    args.score_mod = score_mod.get();
    if (call.dropout_seed.defined()) {
      args.dropout_seed = static_cast<uint64_t>(call.dropout_seed.item<int64_t>());
    }
    args.dropout_threshold = dropout_threshold(call.dropout_p);
    args.dropout_scale = dropout_scale(args.dropout_threshold);
    args.splits = 1;
  }
};

/// Returns the number of splits, ranges of whole tiles of keys, that give kTargetTasks tasks; at most
/// `max_splits`.
int64_t splits_for(int64_t tasks, int64_t keys, int64_t tile_keys, int64_t max_splits) {
  if (tasks == 0) return 1;
  const int64_t wanted = divide_up(kTargetTasks, tasks);
  return std::max<int64_t>(1, std::min({wanted, keys / (2 * tile_keys), max_splits}));
}

/// Returns the largest number of blocks per task that leaves several tasks for each thread. The results do
/// not depend on it.
int64_t blocks_per_task_for(int64_t blocks) {
  return std::clamp<int64_t>(blocks / 4 / at::get_num_threads(), 1, kMaxBlocksPerTask);
}

/// Whether there are no scores.
bool is_empty(const AttentionCall& call) { return call.query.numel() == 0 || call.key.numel() == 0; }

/// Allocates the results without initialising them.
AttentionResult allocate(const AttentionCall& call) {
  const auto& query = call.query;
  AttentionResult result{
      .output = at::empty({query.size(0), query.size(1), query.size(2), call.value.size(3)}, query.options()),
      .logsumexp = {},
      .logsumexp_low = {}};
  if (call.weighting == Weighting::softmax) {
    result.logsumexp =
        at::empty({query.size(0), query.size(1), query.size(2)}, query.options().dtype(compute_type(query)));
    result.logsumexp_low = at::empty_like(result.logsumexp);
  }
  return result;
}

/// Fills the results with those of fully masked rows.
AttentionResult fully_masked_result(AttentionResult result) {
  result.output.zero_();
  if (result.logsumexp.defined()) {
    result.logsumexp.fill_(-std::numeric_limits<double>::infinity());
    result.logsumexp_low.zero_();
  }
  return result;
}

/// Returns the sum over the first dimension, in order. If there are several splits, the result does not share
/// memory with `partial`.
at::Tensor sum_splits(const at::Tensor& partial) {
  if (partial.size(0) == 1) return partial[0];
  auto total = partial[0].clone();
  for (int64_t split = 1; split < partial.size(0); ++split) total.add_(partial[split]);
  return total;
}

/// Returns the gradients without the padding of their rows, in the dtype of `like`; undefined if `padded` is
/// undefined.
at::Tensor trimmed(const at::Tensor& padded, const at::Tensor& like) {
  if (!padded.defined()) return {};
  return padded.slice(-1, 0, like.size(-1)).to(like.scalar_type()).contiguous();
}

bool is_any(at::ArrayRef<bool> flags) { return std::ranges::find(flags, true) != flags.end(); }

/// Returns the wanted gradients of a call without scores.
AttentionGradients zero_gradients(const AttentionCall& call, DifferentiableScoreTiles* score_mod,
                                  at::ArrayRef<bool> wanted) {
  const auto zeros = [](const at::Tensor& input, bool is_wanted) {
    return is_wanted ? at::zeros_like(input) : at::Tensor();
  };
  AttentionGradients gradients{.query = zeros(call.query, wanted[0]),
                               .key = zeros(call.key, wanted[1]),
                               .value = zeros(call.value, wanted[2]),
                               .score_mod = {}};
  if (score_mod != nullptr) {
    score_mod->begin_backward(/*splits=*/1, /*visits_all=*/false);
    gradients.score_mod = score_mod->gradients();
  }
  return gradients;
}

/// The number of batch elements and of key/value heads that the backward computes concurrently. Batch
/// elements or heads that add to the same gradients of a score modification are computed one after another.
struct ConcurrentHeads {
  int64_t batches, heads;

  ConcurrentHeads(const BackwardArgs& args, const DifferentiableScoreTiles* score_mod)
      : batches(score_mod != nullptr && score_mod->shares_gradients_over_batch() ? 1 : args.batch),
        heads(score_mod != nullptr && score_mod->shares_gradients_over_heads() ? 1 : args.kv_heads) {}
};

int64_t backward_splits_for(const BackwardArgs& args, const ConcurrentHeads& concurrent, int64_t tile_keys) {
  const int64_t elements = args.batch * args.heads * args.queries * args.d;
  const int64_t max_splits = std::clamp<int64_t>(kMaxSplitElements / elements, 2, kMaxBackwardSplits);
  return splits_for(concurrent.batches * concurrent.heads, args.keys, tile_keys, max_splits);
}

void run_backward(const AttentionKernels& kernels, const BackwardArgs& args,
                  const ConcurrentHeads& concurrent) {
  const int64_t batches = concurrent.batches, heads = concurrent.heads;
  run_tasks(
      batches * heads * args.splits, kernels.backward_scratch_bytes(args), [&](int64_t group, void* scratch) {
        const int64_t split = group % args.splits;
        const int64_t first_head = group / args.splits % heads, first_batch = group / args.splits / heads;
        for (int64_t b = first_batch; b < args.batch; b += batches) {
          for (int64_t h = first_head; h < args.kv_heads; h += heads) {
            kernels.backward(args, (b * args.kv_heads + h) * args.splits + split, scratch);
          }
        }
      });
}

}  // namespace

AttentionResult attention(const AttentionCall& call) {
  auto result = allocate(call);
  if (is_empty(call)) return fully_masked_result(result);
  const KernelInputs inputs(call, /*known_mask_states=*/{});
  result.mask_states = inputs.mask_states.all();
  const auto& kernels = attention_kernels(element_type(inputs.query));
  ForwardArgs args{};
  inputs.fill(call, args);
  args.output = strided_tensor(result.output);
  args.logsumexp = data_of(result.logsumexp);
  args.logsumexp_low = data_of(result.logsumexp_low);

  const int64_t heads = args.batch * args.kv_heads, blocks = kernels.blocks(args);
  args.splits = splits_for(heads * blocks, args.keys, kernels.tile_keys, args.keys);
  args.blocks_per_task = blocks_per_task_for(heads * blocks * args.splits);
  at::Tensor partials;
  if (args.splits > 1) {
    partials = at::empty({args.splits, args.batch, args.heads, args.queries, args.d_v + 2},
                         inputs.query.options().dtype(compute_type(inputs.query)));
    args.partials = partials.data_ptr();
  }
  const int64_t groups = divide_up(blocks, args.blocks_per_task);
  run_tasks(heads * groups * args.splits, kernels.forward_scratch_bytes(args),
            [&](int64_t task, void* scratch) { kernels.forward(args, task, scratch); });
  if (args.splits > 1) {
    at::parallel_for(0, args.batch * args.heads * args.queries, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) kernels.merge_splits(args, row);
    });
  }
  return result;
}

AttentionGradients attention_backward(const AttentionCall& call, const AttentionResult& result,
                                      const at::Tensor& grad_output, const at::Tensor& grad_logsumexp,
                                      at::ArrayRef<bool> wanted) {
  const KernelInputs inputs(call, result.mask_states);
  const auto score_mod_wanted = wanted.slice(3);
  if (inputs.score_mod != nullptr) inputs.score_mod->want_gradients(score_mod_wanted);
  if (is_empty(call)) return zero_gradients(call, inputs.score_mod.get(), wanted);
  const auto& kernels = attention_kernels(element_type(inputs.query));
  const auto output = with_contiguous_rows(result.output), grad = with_contiguous_rows(grad_output);
  const auto grad_lse = grad_logsumexp.defined() ? grad_logsumexp.contiguous() : at::Tensor();
  BackwardArgs args{};
  inputs.fill(call, args);
  args.output = strided_tensor(output);
  args.grad_output = strided_tensor(grad);
  args.logsumexp = data_of(result.logsumexp);
  args.logsumexp_low = data_of(result.logsumexp_low);
  args.grad_logsumexp = data_of(grad_lse);
  const ConcurrentHeads concurrent(args, inputs.score_mod.get());
  args.splits = backward_splits_for(args, concurrent, kernels.tile_keys);
  args.blocks_per_task = kMaxBlocksPerTask;

  const auto options = inputs.query.options().dtype(compute_type(inputs.query));
  const int64_t width = round_up(args.d, kernels.lanes), width_v = round_up(args.d_v, kernels.lanes);
  at::Tensor grad_query, grad_key, grad_value;
  if (wanted[0]) grad_query = at::empty({args.splits, args.batch, args.heads, args.queries, width}, options);
  if (wanted[1]) grad_key = at::zeros({args.batch, args.kv_heads, args.keys, width}, options);
  if (wanted[2]) grad_value = at::zeros({args.batch, args.kv_heads, args.keys, width_v}, options);
  args.grad_query = data_of(grad_query);
  args.grad_key = data_of(grad_key);
  args.grad_value = data_of(grad_value);
  args.needs_grad_scores = wanted[0] || wanted[1] || is_any(score_mod_wanted);

  if (inputs.score_mod != nullptr) inputs.score_mod->begin_backward(args.splits, inputs.mask == nullptr);
  run_backward(kernels, args, concurrent);
  return {
      .query = wanted[0] ? trimmed(sum_splits(grad_query), call.query) : at::Tensor(),
      .key = trimmed(grad_key, call.key),
      .value = trimmed(grad_value, call.value),
      .score_mod = inputs.score_mod != nullptr ? inputs.score_mod->gradients() : std::vector<at::Tensor>()};
}

}  // namespace attend::cpu
