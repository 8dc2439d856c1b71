#pragma once

// Helpers of the mixers of linear attention.

#include <attend/linear_attention.h>
#include <attend/recurrent_state.h>

#include "nn/checks.h"
#include "nn/onednn_linear.h"

namespace attend::nn {

/// Returns embed_dim / num_heads. Fails with an error of the module if one of them is below 1, or if the
/// division leaves a remainder and the quotient `is_required`, as the default of an option.
int64_t channels_per_head(const char* module, int64_t embed_dim, int64_t num_heads, bool is_required);

/// Replaces a width of 0 by its default. Fails with an error of the module if the result is below 1.
void resolve_width(const char* module, const char* name, int64_t& width, int64_t default_width);

/// Reshapes [B, L, H * D] or [L, H * D] to [B, H, L, D].
at::Tensor split_heads(const at::Tensor& projected, int64_t num_heads);

/// Reshapes [B, H, L, D] to [B, L, H * D], or to [L, H * D] if `input` has two dimensions.
at::Tensor merge_heads(const at::Tensor& heads, const at::Tensor& input);

/// Fails, in the name of the module, where its options no longer fit its projections of queries and values.
template <typename Module>
void check_projections(const char* name, const Module& module) {
  const auto& options = module.options;
  const auto& query = module.q_proj->weight;
  const int64_t heads = options.num_heads();
  check_option(name, "options.embed_dim", query.size(1) == options.embed_dim());
  check_option(name, "options.head_dim", query.size(0) == heads * options.head_dim());
  check_option(name, "options.value_head_dim",
               module.v_proj->weight.size(0) == heads * options.value_head_dim());
}

/// Fails with an error of the module unless the state is null, empty, or fits the module and the input [B, L,
/// E] or [L, E]: it must have a memory [B, memory_sizes...] and, if `recent_sizes` are given, recent inputs
/// [B, recent_sizes...].
void check_state(const char* module, const RecurrentState* state, const at::Tensor& input,
                 at::IntArrayRef memory_sizes, at::IntArrayRef recent_sizes = {});

/// Computes causal linear attention of tensors [B, H, L, D], starting from the state, and updates the state
/// unless it is null.
at::Tensor recurrent_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               LinearAttentionParams params, RecurrentState* state);

}  // namespace attend::nn
