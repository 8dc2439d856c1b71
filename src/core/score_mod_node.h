#pragma once

#include <ATen/core/Tensor.h>
#include <attend/score_mod.h>

#include <memory>
#include <utility>
#include <variant>
#include <vector>

namespace attend {

/// The data of a `ScoreMod`. It depends on no backend: functional/score_mod constructs and checks it,
/// reference/score_mod.h defines its meaning, and each backend has a visitor that translates it.
struct ScoreModNode {
  /// score - slopes[b, h] |i + Lk - Lq - j|
  struct Alibi {
    at::Tensor slopes;  ///< [H] or [B, H]
  };
  /// score + values[b, h, i, j]
  struct Bias {
    at::Tensor values;  ///< broadcasts to [B, H, Lq, Lk]
  };
  /// score + table[bucket(j - (i + Lk - Lq)), h]
  struct RelativeBias {
    at::Tensor table;  ///< [buckets.count, H]
    RelativeBuckets buckets;
  };
  /// cap tanh(score / cap)
  struct Softcap {
    double cap;
  };
  /// function(score, position)
  struct Lambda {
    std::shared_ptr<const detail::ScoreFunction> function;
  };
  /// second(first(score)). Neither is the default, which changes nothing.
  struct Composed {
    ScoreMod first, second;
  };

  using Kind = std::variant<Alibi, Bias, RelativeBias, Softcap, Lambda, Composed>;
  Kind kind;
};

inline ScoreMod make_score_mod(ScoreModNode::Kind kind) {
  return ScoreMod(std::make_shared<const ScoreModNode>(ScoreModNode{std::move(kind)}));
}

/// Returns the tensors of the score modification, all of which can have gradients.
std::vector<at::Tensor> tensors_of(const ScoreMod& score_mod);

/// Returns the score modification with its tensors, in the order of `tensors_of`, replaced by tensors of the
/// same shapes and dtypes.
ScoreMod with_tensors(const ScoreMod& score_mod, at::TensorList tensors);

}  // namespace attend
