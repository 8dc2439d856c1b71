#include "nn/multi_head_projections.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "nn/l2_norm.h"
#include "nn/multi_head_options.h"
#include "nn/onednn_linear.h"

namespace attend::nn {
namespace {

constexpr double kMaxLogitScale = 4.605170185988092;  // ln 100, as in Liu 2021
/// The square of 1e-12, the least norm by which torch.nn.functional.normalize divides.
constexpr double kMinSquaredNorm = 1e-24;

/// A range of rows of in_proj_weight and in_proj_bias.
struct Rows {
  int64_t first, count;
};

/// Projects the input by the given rows of in_proj_weight, or by `own_weight` if the module has no
/// in_proj_weight, and splits the result into heads [B, H, L, D].
torch::Tensor project(const MultiHeadAttentionImpl& module, const torch::Tensor& input, const Rows& rows,
                      const torch::Tensor& own_weight = {}) {
  const auto weight =
      own_weight.defined() ? own_weight : module.in_proj_weight.narrow(0, rows.first, rows.count);
  const auto bias =
      module.in_proj_bias.defined() ? module.in_proj_bias.narrow(0, rows.first, rows.count) : torch::Tensor();
  const auto heads =
      linear(input, weight, bias).unflatten(-1, {-1, module.options.head_dim()}).transpose(-3, -2);
  return heads.dim() == 4 ? heads : heads.unsqueeze(0);
}

/// Returns `heads` [B, Hkv, L, D] with bias_k or bias_v [1, 1, Hkv D] appended as one more row.
torch::Tensor with_bias(const torch::Tensor& heads, const torch::Tensor& bias) {
  const auto row = bias.view({1, heads.size(1), 1, heads.size(3)}).to(heads.scalar_type());
  return at::cat({heads, row.expand({heads.size(0), -1, -1, -1})}, 2);
}

torch::Tensor with_zeros(const torch::Tensor& heads) {
  return at::cat({heads, at::zeros({heads.size(0), heads.size(1), 1, heads.size(3)}, heads.options())}, 2);
}

}  // namespace

torch::Tensor project_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query) {
  return project(module, query, {0, query_width(module.options)}, module.q_proj_weight);
}

KeyValue project_key_value(const MultiHeadAttentionImpl& module, const torch::Tensor& key,
                           const torch::Tensor& value) {
  const int64_t first = query_width(module.options), count = kv_width(module.options);
  if (is_packed(module.options) && key.is_same(value)) {
    const auto both = project(module, key, {first, 2 * count}).chunk(2, 1);
    return {both[0], both[1]};
  }
  return {project(module, key, {first, count}, module.k_proj_weight),
          project(module, value, {first + count, count}, module.v_proj_weight)};
}

Heads project_all(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& key,
                  const torch::Tensor& value) {
  if (is_packed(module.options) && query.is_same(key) && key.is_same(value)) {
    const int64_t heads = module.options.num_heads(), kv_heads = module.options.num_kv_heads();
    const auto all = project(module, query, {0, module.in_proj_weight.size(0)});
    const auto parts = all.split_with_sizes({heads, kv_heads, kv_heads}, 1);
    return {parts[0], parts[1], parts[2]};
  }
  const auto [projected_key, projected_value] = project_key_value(module, key, value);
  return {project_query(module, query), projected_key, projected_value};
}

torch::Tensor scaled_unit_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query) {
  const auto scale = module.logit_scale.clamp_max(kMaxLogitScale).exp().view({-1, 1, 1});
  return l2_norm(query, kMinSquaredNorm) * scale.to(query.scalar_type());
}

torch::Tensor unit_key(const torch::Tensor& key) { return l2_norm(key, kMinSquaredNorm); }

void append_extra_keys(const MultiHeadAttentionImpl& module, Heads& heads) {
  if (module.options.add_bias_kv()) {
    heads.key = with_bias(heads.key, module.bias_k);
    heads.value = with_bias(heads.value, module.bias_v);
  }
  if (module.options.add_zero_attn()) {
    heads.key = with_zeros(heads.key);
    heads.value = with_zeros(heads.value);
  }
}

torch::Tensor project_out(const MultiHeadAttentionImpl& module, const torch::Tensor& heads,
                          int64_t query_dim) {
  const auto result = linear(heads.transpose(1, 2).flatten(2), *module.out_proj);
  return query_dim == 3 ? result : result.squeeze(0);
}

}  // namespace attend::nn
