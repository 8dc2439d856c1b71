#pragma once

#include <attend/export.h>
#include <attend/linear_attention.h>
#include <attend/nn/mixer.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `LinearAttention`. A width of 0 means its default.
struct ATTEND_API LinearAttentionOptions {
  LinearAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width E of the input and the result.
  TORCH_ARG(int64_t, embed_dim);
  /// The number of heads H.
  TORCH_ARG(int64_t, num_heads);
  /// The number of channels of the queries and keys of a head. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The number of channels of the values of a head. Default: head_dim.
  TORCH_ARG(int64_t, value_head_dim) = 0;
  /// The feature map of queries and keys. Default: elu_plus_one.
  TORCH_ARG(FeatureMap, feature_map) = FeatureMap::elu_plus_one;
  /// The number of random features, for `FeatureMap::random_features` only. Default: 2 * head_dim.
  TORCH_ARG(int64_t, num_features) = 0;
  /// Whether outputs are divided by their normaliser. Default: true.
  TORCH_ARG(bool, normalize) = true;
  /// Whether a token attends only to itself and to earlier tokens. Default: true.
  TORCH_ARG(bool, is_causal) = true;
  /// Whether the projections add a learned bias. Default: false.
  TORCH_ARG(bool, bias) = false;
};

/// Linear attention (Katharopoulos 2020), or with random features the attention of the Performer (Choromanski
/// 2021):
///
///     result = o_proj(heads of linear_attention(q_proj x, k_proj x, v_proj x))
///
/// If `is_causal` is false, there is no state. Parameters: q_proj, k_proj, v_proj, o_proj. Buffer, only with
/// random features: projection [num_features, head_dim].
///
/// Errors (c10::Error): an input with another shape, dtype or device than the parameters require; a state
/// with other sizes than this module and input need; options out of their range.
class ATTEND_API LinearAttentionImpl : public torch::nn::Cloneable<LinearAttentionImpl>, public CheckedMixer {
 public:
  LinearAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : LinearAttentionImpl(LinearAttentionOptions(embed_dim, num_heads)) {}
  explicit LinearAttentionImpl(const LinearAttentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& input, const RecurrentState* state) const override;

  /// input [B, L, embed_dim] or [L, embed_dim] -> the same shape. With a state, the input continues the
  /// sequence of the state, and the state is updated.
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  /// The options, with every default resolved.
  LinearAttentionOptions options;
  /// The projections.
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
  /// The directions of the random features, [num_features, head_dim]; undefined with other feature maps.
  torch::Tensor projection;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(LinearAttention);

}  // namespace attend::nn
