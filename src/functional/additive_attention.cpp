#include "reference/additive_attention.h"

#include <ATen/ops/cat.h>
#include <attend/additive_attention.h>

#include <algorithm>
#include <vector>

#include "autograd/checkpoint.h"
#include "core/attention_call.h"
#include "core/checks.h"
#include "core/exact_dtype.h"
#include "core/inputs.h"
#include "core/mask_node.h"
#include "functional/attention_arguments.h"

namespace attend {
namespace {

/// The largest number of arguments of tanh in one chunk: 16 MiB in float32.
constexpr int64_t kMaxArguments = int64_t{1} << 22;

void check_score_weight(const char* function, const at::Tensor& score_weight, const at::Tensor& query) {
  checks::check_strided(function, "score_weight", score_weight);
  checks::check_device(function, "score_weight", score_weight, query.device());
  const auto dtype = score_weight.scalar_type();
  const bool has_dtype = dtype == query.scalar_type() || dtype == at::kFloat;
  if (!has_dtype || !score_weight.sizes().equals({query.size(-1)})) {
    checks::fail(function, "score_weight",
                 c10::str(checks::dtype_name(query.scalar_type()), " or float32 [", query.size(-1), "]"),
                 checks::describe(score_weight));
  }
}

/// Returns the number of queries in a chunk.
int64_t rows_per_chunk(const AttentionCall& call) {
  const int64_t per_row = call.query.size(0) * call.query.size(1) * call.key.size(2) * call.query.size(3);
  return std::max<int64_t>(1, kMaxArguments / std::max<int64_t>(1, per_row));
}

/// Computes attention in chunks of queries. The backward pass recomputes each chunk from its queries and all
/// keys.
at::Tensor in_chunks(const AttentionCall& call, const at::Tensor& score_weight, int64_t rows) {
  std::vector<at::Tensor> outputs;
  int64_t first = 0;
  for (const auto& query : call.query.split(rows, 2)) {
    const auto shape = call.shape().part(first, query.size(2));
    const auto attend_chunk = [=](const std::vector<at::Tensor>& inputs) {
      auto chunk = call;
      chunk.query = inputs[0];
      chunk.key = inputs[1];
      chunk.value = inputs[2];
      return reference::additive_attention(chunk, inputs[3], shape);
    };
    outputs.push_back(autograd::checkpointed(attend_chunk, {query, call.key, call.value, score_weight},
                                             tensors_of(call.mask)));
    first += query.size(2);
  }
  return at::cat(outputs, 2);
}

}  // namespace

at::Tensor additive_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const at::Tensor& score_weight, const AdditiveAttentionParams& params) {
  constexpr auto kName = "additive_attention";
  auto call = checked_call(kName, query, key, value, {.mask = params.mask, .dropout_p = params.dropout_p});
  check_score_weight(kName, score_weight, query);
  const ExactDtype exact;
  if (call.dropout_p > 0) call.dropout_seed = draw_seed(call.query.device());
  const int64_t rows = rows_per_chunk(call);
  const auto output = rows < call.query.size(2)
                          ? in_chunks(call, score_weight, rows)
                          : reference::additive_attention(call, score_weight, call.shape());
  return without_heads(output, query.dim());
}

at::Tensor additive_attention_weights(const at::Tensor& query, const at::Tensor& key,
                                      const at::Tensor& score_weight, const Mask& mask) {
  constexpr auto kName = "additive_attention_weights";
  const auto call = checked_call(kName, query, key, /*value=*/key, {.mask = mask});
  check_score_weight(kName, score_weight, query);
  const ExactDtype exact;
  const auto weights = reference::additive_attention_weights(call, score_weight, call.shape());
  return without_heads(weights.to(query.scalar_type()), query.dim());
}

}  // namespace attend
