#pragma once

#include "nn/multi_head_check.h"

namespace attend::nn {

/// Computes `forward` for checked arguments. `dropout_p` is applied only in training mode.
torch::Tensor run(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                  const MultiHeadAttentionParams& params, double dropout_p);

/// Computes `forward_with_weights` for checked arguments.
std::tuple<torch::Tensor, torch::Tensor> run_with_weights(const MultiHeadAttentionImpl& module,
                                                          const AttentionInputs& inputs,
                                                          const MultiHeadAttentionParams& params,
                                                          bool average_attn_weights);

/// Computes `append` for checked arguments.
void run_append(const MultiHeadAttentionImpl& module, KVCache& cache, const torch::Tensor& key,
                const torch::Tensor& value, const torch::Tensor& lengths);

}  // namespace attend::nn
