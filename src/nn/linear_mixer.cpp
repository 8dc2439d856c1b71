#include "nn/linear_mixer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "core/checks.h"
#include "core/dtypes.h"
#include "nn/checks.h"

namespace attend::nn {

using checks::fail;

namespace {

/// Fails unless a tensor of the state is [batch, rest...], of the given dtype and on the device of the input.
void check_state_tensor(const char* module, const char* name, const at::Tensor& tensor,
                        const at::Tensor& input, at::IntArrayRef rest, at::ScalarType dtype) {
  std::vector<int64_t> sizes = {input.dim() == 3 ? input.size(0) : 1};
  sizes.insert(sizes.end(), rest.begin(), rest.end());
  if (tensor.defined() && tensor.device() != input.device()) {
    fail(module, "state", c10::str("a tensor `", name, "` on the input's device ", input.device()),
         c10::str(tensor.device()));
  }
  if (tensor.defined() && tensor.sizes() == at::IntArrayRef(sizes) && tensor.scalar_type() == dtype) return;
  fail(module, "state",
       c10::str("a tensor `", name, "` of ", checks::dtype_name(dtype), " ", at::IntArrayRef(sizes)),
       checks::describe(tensor));
}

/// Returns the memory before the first token, which is zeros.
at::Tensor empty_memory(const at::Tensor& key, const at::Tensor& value, const LinearAttentionParams& params) {
  const int64_t features = params.projection.defined() ? params.projection.size(0) : key.size(3);
  return at::zeros({key.size(0), key.size(1), features, value.size(3) + (params.normalize ? 1 : 0)},
                   key.options().dtype(compute_type(key)));
}

}  // namespace

int64_t channels_per_head(const char* module, int64_t embed_dim, int64_t num_heads, bool is_required) {
  check_width(module, "embed_dim", embed_dim);
  if (num_heads < 1) fail(module, "num_heads", "at least 1", c10::str(num_heads));
  if (is_required && embed_dim % num_heads != 0) {
    fail(module, "num_heads", c10::str("a divisor of embed_dim, ", embed_dim, ", or a head_dim"),
         c10::str(num_heads));
  }
  return embed_dim / num_heads;
}

void resolve_width(const char* module, const char* name, int64_t& width, int64_t default_width) {
  if (width == 0) width = default_width;
  check_width(module, name, width);
}

at::Tensor split_heads(const at::Tensor& projected, int64_t num_heads) {
  const auto heads = projected.unflatten(-1, {num_heads, -1}).transpose(-3, -2);
  return heads.dim() == 4 ? heads : heads.unsqueeze(0);
}

at::Tensor merge_heads(const at::Tensor& heads, const at::Tensor& input) {
  const auto merged = heads.transpose(1, 2).flatten(2);
  return input.dim() == 3 ? merged : merged.squeeze(0);
}

void check_state(const char* module, const RecurrentState* state, const at::Tensor& input,
                 at::IntArrayRef memory_sizes, at::IntArrayRef recent_sizes) {
  if (state == nullptr || (!state->memory.defined() && !state->recent.defined())) return;
  check_state_tensor(module, "memory", state->memory, input, memory_sizes, compute_type(input));
  if (recent_sizes.empty()) return;
  // The recent inputs may have another dtype, if the autocast settings have changed since.
  const bool has_dtype = state->recent.defined() && state->recent.is_floating_point();
  const auto recent_dtype = has_dtype ? state->recent.scalar_type() : input.scalar_type();
  check_state_tensor(module, "recent", state->recent, input, recent_sizes, recent_dtype);
}

at::Tensor recurrent_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               LinearAttentionParams params, RecurrentState* state) {
  params.is_causal = true;
  if (state == nullptr) return linear_attention(query, key, value, params).output;
  if (key.size(2) == 1 && !at::GradMode::is_enabled()) {
    if (!state->memory.defined()) state->memory = empty_memory(key, value, params);
    const auto output = linear_attention_step(query, key, value, state->memory, params);
    ++state->length;
    return output;
  }
  params.initial_state = state->memory;
  const auto result = linear_attention(query, key, value, params);
  state->memory = result.final_state;
  state->length += key.size(2);
  return result.output;
}

}  // namespace attend::nn
