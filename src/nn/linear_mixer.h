#pragma once

// What the mixers of linear attention have in common.

#include <attend/nn/linear_attention.h>

#include "nn/onednn_linear.h"

namespace attend::nn {

/// embed_dim / num_heads. Fails, in the name of the module, where one of them is below 1, or where it is
/// `needed` as a default and the heads don't divide the width.
int64_t channels_per_head(const char* module, int64_t embed_dim, int64_t num_heads, bool needed);

/// A width of 0 becomes the default; fails below 1.
void fill_in_width(const char* module, const char* name, int64_t& width, int64_t otherwise);

/// [B, L, H * D] or [L, H * D] -> [B, H, L, D]
torch::Tensor in_heads(const torch::Tensor& projected, int64_t num_heads);

/// [B, H, L, D] -> [B, L, H * D] or [L, H * D], as `input` has dimensions.
torch::Tensor out_of_heads(const torch::Tensor& heads, const torch::Tensor& input);

/// Fails, in the name of a module, unless the state is empty or one of the module and the input [B, L, E] or
/// [L, E]: its memory [B, memory...], and where `recent` is given [B, recent...].
void check_state(const char* module, const RecurrentState* state, const torch::Tensor& input,
                 at::IntArrayRef memory, at::IntArrayRef recent = {});

/// Causal linear attention of [B, H, L, D], from the state and on to it, where there is one.
torch::Tensor recur(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                    LinearAttentionParams params, RecurrentState* state);

/// x / sqrt(mean of x^2 over the last dimension + eps) * weight, computed in float32 at least.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

}  // namespace attend::nn
