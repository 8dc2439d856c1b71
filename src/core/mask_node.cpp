#include "core/mask_node.h"

#include <ATen/ops/minimum.h>

namespace attend {
namespace {

void collect_tensors(const Mask& mask, std::vector<at::Tensor>& tensors) {
  if (!mask.defined()) return;
  const auto& kind = mask.node()->kind;
  if (const auto* dense = std::get_if<MaskNode::Dense>(&kind)) tensors.push_back(dense->allowed);
  if (const auto* both = std::get_if<MaskNode::Both>(&kind)) {
    collect_tensors(both->left, tensors);
    collect_tensors(both->right, tensors);
  }
  if (const auto* negated = std::get_if<MaskNode::Not>(&kind)) collect_tensors(negated->inner, tensors);
}

}  // namespace

std::vector<at::Tensor> tensors_of(const Mask& mask) {
  std::vector<at::Tensor> tensors;
  collect_tensors(mask, tensors);
  return tensors;
}

at::Tensor key_lengths_of(const Mask& mask) {
  if (!mask.defined()) return {};
  const auto& kind = mask.node()->kind;
  if (const auto* key_lengths = std::get_if<MaskNode::KeyLengths>(&kind)) return key_lengths->lengths;
  const auto* both = std::get_if<MaskNode::Both>(&kind);
  if (both == nullptr) return {};
  const auto left = key_lengths_of(both->left), right = key_lengths_of(both->right);
  if (left.defined() && right.defined()) return at::minimum(left, right.to(left.device()));
  return left.defined() ? left : right;
}

bool is_top_left_causal(const Mask& mask, const ScoreShape& shape) {
  if (!mask.defined()) return false;
  const auto* causal = std::get_if<MaskNode::Causal>(&mask.node()->kind);
  return causal != nullptr && (causal->corner == Corner::top_left || shape.queries == shape.keys);
}

}  // namespace attend
