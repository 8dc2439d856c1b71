#include "core/score_mod_node.h"

namespace attend {
namespace {

/// Returns the tensor of a modification that is not composed; null if it has none.
at::Tensor* tensor_of(ScoreModNode::Kind& kind) {
  if (auto* alibi = std::get_if<ScoreModNode::Alibi>(&kind)) return &alibi->slopes;
  if (auto* bias = std::get_if<ScoreModNode::Bias>(&kind)) return &bias->values;
  if (auto* relative = std::get_if<ScoreModNode::RelativeBias>(&kind)) return &relative->table;
  return nullptr;
}

}  // namespace

std::vector<at::Tensor> tensors_of(const ScoreMod& score_mod) {
  if (!score_mod.defined()) return {};
  auto kind = score_mod.node()->kind;
  if (const auto* composed = std::get_if<ScoreModNode::Composed>(&kind)) {
    auto tensors = tensors_of(composed->first);
    for (auto& tensor : tensors_of(composed->second)) tensors.push_back(std::move(tensor));
    return tensors;
  }
  const auto* tensor = tensor_of(kind);
  return tensor != nullptr ? std::vector<at::Tensor>{*tensor} : std::vector<at::Tensor>();
}

ScoreMod with_tensors(const ScoreMod& score_mod, at::TensorList tensors) {
  if (tensors.empty()) return score_mod;
  auto kind = score_mod.node()->kind;
  if (const auto* composed = std::get_if<ScoreModNode::Composed>(&kind)) {
    const auto first_tensors = tensors_of(composed->first).size();
    return make_score_mod(
        ScoreModNode::Composed{with_tensors(composed->first, tensors.slice(0, first_tensors)),
                               with_tensors(composed->second, tensors.slice(first_tensors))});
  }
  *tensor_of(kind) = tensors[0];
  return make_score_mod(std::move(kind));
}

}  // namespace attend
