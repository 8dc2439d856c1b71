#include "cpu/attention/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "core/mask_node.h"
#include "core/philox.h"
#include "core/score_mod_node.h"
#include "cpu/attention/kernel.h"
#include "cpu/runtime/tasks.h"
#include "cpu/runtime/tensor_view.h"

namespace attend::cpu {
namespace {

/// As many tasks as this keep the cores of a large machine busy. Not the number of threads: results must not
/// depend on that.
constexpr int64_t kEnoughTasks = 16;
/// A backward split holds gradients of all queries of its own: so many splits, and so many numbers in them.
constexpr int64_t kMostBackwardSplits = 8, kMostSplitNumbers = int64_t{1} << 27;

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

/// The call with every tensor's rows contiguous, and what of it the kernels read.
struct Bound {
  at::Tensor query, key, value;
  std::unique_ptr<MaskTiles> mask;
  std::unique_ptr<BoundScoreMod> score_mod;

  explicit Bound(const AttentionCall& call)
      : query(with_contiguous_rows(call.query)),
        key(with_contiguous_rows(call.key)),
        value(with_contiguous_rows(call.value)) {
    if (call.mask.defined()) mask = call.mask.node()->bind(call.shape(), call.query_dim);
    if (call.score_mod.defined()) {
      score_mod = call.score_mod.node()->bind(call.shape(), call.query_dim, compute_type(query));
    }
  }

  void describe(const AttentionCall& call, AttentionArgs& args) const {
    args.query = heads_of(query);
    args.key = heads_of(key);
    args.value = heads_of(value);
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
    args.dropout_seed = call.dropout_seed;
    args.dropout_threshold = dropout_threshold(call.dropout_p);
    args.dropout_scale = dropout_scale(args.dropout_threshold);
    args.splits = 1;
  }
};

/// Into how many ranges of whole tiles the keys are split, so that there is enough to do at once.
int64_t splits_for(int64_t tasks, int64_t keys, int64_t tile_keys, int64_t most) {
  if (tasks == 0) return 1;
  const int64_t wanted = (kEnoughTasks + tasks - 1) / tasks;
  return std::max<int64_t>(1, std::min({wanted, keys / (2 * tile_keys), most}));
}

/// As many as leave every thread several tasks. Results don't depend on it.
int64_t blocks_together_for(int64_t blocks) {
  return std::clamp<int64_t>(blocks / 4 / at::get_num_threads(), 1, kMostBlocksTogether);
}

/// No scores at all.
bool is_empty(const AttentionCall& call) { return call.query.numel() == 0 || call.key.numel() == 0; }

/// Output and logsumexp, to be written.
AttentionResult allocate(const AttentionCall& call) {
  const auto& query = call.query;
  AttentionResult result{
      at::empty({query.size(0), query.size(1), query.size(2), call.value.size(3)}, query.options()), {}, {}};
  if (call.weighting == Weighting::softmax) {
    result.logsumexp =
        at::empty({query.size(0), query.size(1), query.size(2)}, query.options().dtype(compute_type(query)));
    result.logsumexp_rest = at::empty_like(result.logsumexp);
  }
  return result;
}

/// Those of queries that see nothing.
AttentionResult seeing_nothing(AttentionResult result) {
  result.output.zero_();
  if (result.logsumexp.defined()) {
    result.logsumexp.fill_(-std::numeric_limits<double>::infinity());
    result.logsumexp_rest.zero_();
  }
  return result;
}

/// Sums the first dimension in its order. Of many parts it keeps none alive.
at::Tensor sum_splits(const at::Tensor& partial) {
  if (partial.size(0) == 1) return partial[0];
  auto total = partial[0].clone();
  for (int64_t split = 1; split < partial.size(0); ++split) total.add_(partial[split]);
  return total;
}

/// Gradients as the kernel adds them up, without the padding of their rows, in the dtype of `like`.
at::Tensor trimmed(const at::Tensor& padded, const at::Tensor& like) {
  return padded.slice(-1, 0, like.size(-1)).to(like.scalar_type()).contiguous();
}

/// Batch elements and heads that can run at once in the backward pass: those that add to the same gradients
/// of a score modification run one after the other.
struct Concurrent {
  int64_t batches, heads;

  Concurrent(const BackwardArgs& args, const BoundScoreMod* score_mod)
      : batches(score_mod != nullptr && score_mod->shares_gradients_over_batch() ? 1 : args.batch),
        heads(score_mod != nullptr && score_mod->shares_gradients_over_heads() ? 1 : args.kv_heads) {}
};

int64_t backward_splits_for(const BackwardArgs& args, const Concurrent& concurrent, int64_t tile_keys) {
  const int64_t numbers = args.batch * args.heads * args.queries * args.d;
  const int64_t most = std::clamp<int64_t>(kMostSplitNumbers / numbers, 2, kMostBackwardSplits);
  return splits_for(concurrent.batches * concurrent.heads, args.keys, tile_keys, most);
}

void run_backward(const AttentionKernels& kernels, const BackwardArgs& args, const Concurrent& concurrent) {
  const auto [batches, heads] = concurrent;
  run_tasks(batches * heads * args.splits, kernels.backward_scratch(args), [&](int64_t group, void* scratch) {
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
  if (is_empty(call)) return seeing_nothing(result);
  const Bound bound(call);
  const auto& kernels = attention_kernels(element_type(bound.query));
  ForwardArgs args;
  bound.describe(call, args);
  args.output = heads_of(result.output);
  args.logsumexp = data_of(result.logsumexp);
  args.logsumexp_rest = data_of(result.logsumexp_rest);

  const int64_t heads = args.batch * args.kv_heads, blocks = kernels.blocks(args);
  args.splits = splits_for(heads * blocks, args.keys, kernels.tile_keys, args.keys);
  args.blocks_together = blocks_together_for(heads * blocks * args.splits);
  at::Tensor partial;
  if (args.splits > 1) {
    partial = at::empty({args.splits, args.batch, args.heads, args.queries, args.d_v + 2},
                        bound.query.options().dtype(compute_type(bound.query)));
    args.partial = partial.data_ptr();
  }
  const int64_t groups = (blocks + args.blocks_together - 1) / args.blocks_together;
  run_tasks(heads * groups * args.splits, kernels.forward_scratch(args),
            [&](int64_t task, void* scratch) { kernels.forward(args, task, scratch); });
  if (args.splits > 1) {
    at::parallel_for(0, args.batch * args.heads * args.queries, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) kernels.join(args, row);
    });
  }
  return result;
}

AttentionGradients attention_backward(const AttentionCall& call, const AttentionResult& result,
                                      const at::Tensor& grad_output, const at::Tensor& grad_logsumexp,
                                      at::ArrayRef<bool> wanted) {
  const Bound bound(call);
  if (bound.score_mod != nullptr) bound.score_mod->want_gradients(wanted);
  if (is_empty(call)) {
    AttentionGradients none{
        at::zeros_like(call.query), at::zeros_like(call.key), at::zeros_like(call.value), {}};
    if (bound.score_mod != nullptr) {
      bound.score_mod->begin_backward(/*splits=*/1, /*visits_all=*/false);
      none.score_mod = bound.score_mod->gradients();
    }
    return none;
  }
  const auto& kernels = attention_kernels(element_type(bound.query));
  const auto output = with_contiguous_rows(result.output), grad = with_contiguous_rows(grad_output);
  const auto grad_lse = grad_logsumexp.defined() ? grad_logsumexp.contiguous() : at::Tensor();
  BackwardArgs args;
  bound.describe(call, args);
  args.output = heads_of(output);
  args.grad_output = heads_of(grad);
  args.logsumexp = data_of(result.logsumexp);
  args.logsumexp_rest = data_of(result.logsumexp_rest);
  args.grad_logsumexp = data_of(grad_lse);
  const Concurrent concurrent(args, bound.score_mod.get());
  args.splits = backward_splits_for(args, concurrent, kernels.tile_keys);
  args.blocks_together = kMostBlocksTogether;

  const auto options = bound.query.options().dtype(compute_type(bound.query));
  const int64_t width = padded(args.d, kernels.lanes), width_v = padded(args.d_v, kernels.lanes);
  const auto grad_query = at::empty({args.splits, args.batch, args.heads, args.queries, width}, options);
  const auto grad_key = at::zeros({args.batch, args.kv_heads, args.keys, width}, options);
  const auto grad_value = at::zeros({args.batch, args.kv_heads, args.keys, width_v}, options);
  args.grad_query = grad_query.data_ptr();
  args.grad_key = grad_key.data_ptr();
  args.grad_value = grad_value.data_ptr();

  if (bound.score_mod != nullptr) bound.score_mod->begin_backward(args.splits, bound.mask == nullptr);
  run_backward(kernels, args, concurrent);
  return {trimmed(sum_splits(grad_query), call.query), trimmed(grad_key, call.key),
          trimmed(grad_value, call.value),
          bound.score_mod != nullptr ? bound.score_mod->gradients() : std::vector<at::Tensor>()};
}

}  // namespace attend::cpu
