#pragma once

#include "nn/multi_head_check.h"

namespace attend::nn {

/// `forward` of a call that was checked; `dropout_p` is used while the module is training.
torch::Tensor run(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                  const MultiHeadAttentionParams& params, double dropout_p);

/// `forward_with_weights` of a call that was checked.
std::tuple<torch::Tensor, torch::Tensor> run_with_weights(const MultiHeadAttentionImpl& module,
                                                          const AttentionInputs& inputs,
                                                          const MultiHeadAttentionParams& params,
                                                          bool average_attn_weights);

/// `append` of a call that was checked.
void run_append(const MultiHeadAttentionImpl& module, KVCache& cache, const torch::Tensor& key,
                const torch::Tensor& value, const torch::Tensor& lengths);

}  // namespace attend::nn
