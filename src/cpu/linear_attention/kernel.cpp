// Compiled once for each instruction set; ATTEND_KERNELS is its name for the table.

#include "cpu/linear_attention/head_backward.h"
#include "cpu/linear_attention/head_forward.h"
#include "cpu/linear_attention/step.h"

namespace attend::cpu {
namespace {

template <typename Element>
LinearAttentionKernels table() {
  using T = Compute<Element>;
  return {kLanes<T>,
          forward_scratch<Element>,
          backward_scratch<Element>,
          add_to_state<Element>,
          add_to_grad_state<Element>,
          prepare_delta<Element>,
          prepare_grad_delta<Element>,
          column_blocks<T>,
          delta_states<T>,
          delta_grad_states<T>,
          row_blocks,
          join_states<T>,
          outputs<Element>,
          head_scratch<Element>,
          outputs_of_head<Element>,
          gradients<Element>,
          head_backward_scratch<Element>,
          gradients_of_head<Element>,
          step_scratch<Element>,
          step<Element>};
}

}  // namespace

LinearAttentionKernels ATTEND_KERNELS(ElementType type);
LinearAttentionKernels ATTEND_KERNELS(ElementType type) {
  switch (type) {
    case ElementType::float64:
      return table<double>();
    case ElementType::bfloat16:
      return table<BFloat16>();
    case ElementType::float16:
      return table<Half>();
    case ElementType::float32:
      break;
  }
  return table<float>();
}

}  // namespace attend::cpu
