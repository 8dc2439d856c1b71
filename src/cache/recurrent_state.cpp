#include <ATen/ops/index_select.h>
#include <attend/recurrent_state.h>

#include "cache/sequences.h"

namespace attend {

RecurrentState RecurrentState::clone() const {
  RecurrentState copy;
  if (memory.defined()) copy.memory = memory.clone();
  if (recent.defined()) copy.recent = recent.clone();
  copy.length = length;
  return copy;
}

void RecurrentState::select(const at::Tensor& sequences) {
  const auto selected = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    cache::checked_sequences("RecurrentState", sequences, tensor.size(0));
    return at::index_select(tensor, 0, sequences.to(tensor.device()));
  };
  auto selected_memory = selected(memory);
  auto selected_recent = selected(recent);
  memory = std::move(selected_memory);
  recent = std::move(selected_recent);
}

}  // namespace attend
