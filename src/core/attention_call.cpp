#include "core/attention_call.h"

#include "core/mask_node.h"
#include "core/score_mod_node.h"

namespace attend {

std::vector<at::Tensor> AttentionCall::score_mod_tensors() const { return tensors_of(score_mod); }

std::vector<at::Tensor> AttentionCall::inputs() const {
  std::vector<at::Tensor> inputs = {query, key, value};
  for (auto& tensor : score_mod_tensors()) inputs.push_back(std::move(tensor));
  return inputs;
}

std::vector<at::Tensor> AttentionCall::tensors() const {
  auto tensors = inputs();
  for (auto& tensor : tensors_of(mask)) tensors.push_back(std::move(tensor));
  if (sinks.defined()) tensors.push_back(sinks);
  if (dropout_seed.defined()) tensors.push_back(dropout_seed);
  return tensors;
}

}  // namespace attend
