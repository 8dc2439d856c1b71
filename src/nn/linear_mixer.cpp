#include "nn/linear_mixer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "core/checks.h"
#include "core/compute_type.h"
#include "nn/checks.h"

namespace attend::nn {

using checks::fail;

void RecurrentState::select(const torch::Tensor& sequences) {
  for (auto* tensor : {&memory, &recent}) {
    if (tensor->defined()) *tensor = tensor->index_select(0, sequences.to(tensor->device()));
  }
}

namespace {

void check_tensor(const char* module, const char* name, const torch::Tensor& tensor, int64_t batch,
                  at::IntArrayRef rest, at::ScalarType dtype) {
  std::vector<int64_t> sizes = {batch};
  sizes.insert(sizes.end(), rest.begin(), rest.end());
  if (tensor.defined() && tensor.sizes() == at::IntArrayRef(sizes) && tensor.scalar_type() == dtype) return;
  fail(module, "state", c10::str("a ", name, " of ", checks::dtype_name(dtype), " ", at::IntArrayRef(sizes)),
       checks::describe(tensor));
}

}  // namespace

void check_state(const char* module, const RecurrentState* state, const torch::Tensor& input,
                 at::IntArrayRef memory, at::IntArrayRef recent) {
  if (state == nullptr || (!state->memory.defined() && !state->recent.defined())) return;
  const int64_t batch = input.dim() == 3 ? input.size(0) : 1;
  check_tensor(module, "memory", state->memory, batch, memory, compute_type(input));
  if (recent.empty()) return;
  const bool is_there = state->recent.defined();
  check_tensor(module, "recent", state->recent, batch, recent,
               is_there ? state->recent.scalar_type() : input.scalar_type());
}

int64_t channels_per_head(const char* module, int64_t embed_dim, int64_t num_heads, bool needed) {
  check_width(module, "embed_dim", embed_dim);
  if (num_heads < 1) fail(module, "num_heads", "at least 1", c10::str(num_heads));
  if (needed && embed_dim % num_heads != 0) {
    fail(module, "num_heads", c10::str("a number that divides embed_dim, ", embed_dim, ", or a head_dim"),
         c10::str(num_heads));
  }
  return embed_dim / num_heads;
}

void fill_in_width(const char* module, const char* name, int64_t& width, int64_t otherwise) {
  if (width == 0) width = otherwise;
  check_width(module, name, width);
}

torch::Tensor in_heads(const torch::Tensor& projected, int64_t num_heads) {
  const auto heads = projected.unflatten(-1, {num_heads, -1}).transpose(-3, -2);
  return heads.dim() == 4 ? heads : heads.unsqueeze(0);
}

torch::Tensor out_of_heads(const torch::Tensor& heads, const torch::Tensor& input) {
  const auto flat = heads.transpose(1, 2).flatten(2);
  return input.dim() == 3 ? flat : flat.squeeze(0);
}

torch::Tensor recur(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                    LinearAttentionParams params, RecurrentState* state) {
  params.is_causal = true;
  if (state == nullptr) return linear_attention(query, key, value, params).output;
  if (key.size(2) == 1 && !at::GradMode::is_enabled()) {
    if (!state->memory.defined()) {
      const int64_t features = params.projection.defined() ? params.projection.size(0) : key.size(3);
      state->memory =
          at::zeros({query.size(0), query.size(1), features, value.size(3) + (params.normalize ? 1 : 0)},
                    query.options().dtype(compute_type(query)));
    }
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

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
  const auto wide = widen(x);
  const auto scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return (wide * scale).to(x.scalar_type()) * weight;
}

}  // namespace attend::nn
