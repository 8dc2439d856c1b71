// Compiled once for each instruction set; ATTEND_KERNELS is the name of the function that returns its
// kernels.

#include "cpu/linear_attention/head_backward.h"
#include "cpu/linear_attention/head_forward.h"
#include "cpu/linear_attention/step.h"

namespace attend::cpu {
namespace {

template <typename Element>
LinearAttentionKernels table() {
  using T = Compute<Element>;
  return {.lanes = kLanes<T>,
          .scratch = forward_scratch<Element>,
          .backward_scratch = backward_scratch<Element>,
          .add_to_state = add_to_state<Element>,
          .add_to_grad_state = add_to_grad_state<Element>,
          .prepare_delta = prepare_delta<Element>,
          .prepare_grad_delta = prepare_grad_delta<Element>,
          .column_blocks = column_blocks<T>,
          .delta_states = delta_states<T>,
          .delta_grad_states = delta_grad_states<T>,
          .row_blocks = row_blocks,
          .join_states = join_states<T>,
          .outputs = outputs<Element>,
          .head_scratch = head_scratch<Element>,
          .outputs_of_head = outputs_of_head<Element>,
          .gradients = gradients<Element>,
          .head_backward_scratch = head_backward_scratch<Element>,
          .gradients_of_head = gradients_of_head<Element>,
          .step_scratch = step_scratch<Element>,
          .step = step<Element>};
}

}  // namespace

PerElementType<LinearAttentionKernels> ATTEND_KERNELS();
PerElementType<LinearAttentionKernels> ATTEND_KERNELS() {
  return {.float64 = table<double>(),
          .bfloat16 = table<BFloat16>(),
          .float16 = table<Half>(),
          .float32 = table<float>()};
}

}  // namespace attend::cpu
