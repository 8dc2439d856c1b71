// This file is compiled once for each instruction set; ATTEND_KERNELS is the name of the function that
// returns the kernels.

#include "cpu/linear_attention/head_backward.h"
#include "cpu/linear_attention/head_forward.h"
#include "cpu/linear_attention/step.h"

namespace attend::cpu {
namespace {

template <typename Element>
LinearAttentionKernels table() {
  using T = Compute<Element>;
  return {.lanes = kLanes<T>,
          .forward_scratch_bytes = forward_scratch_bytes<Element>,
          .backward_scratch_bytes = scratch_bytes<GradientScratch<T>, LinearArgs>,
          .add_to_state = add_to_state<Element>,
          .add_to_grad_state = add_to_grad_state<Element>,
          .prepare_delta = prepare_delta<Element>,
          .prepare_grad_delta = prepare_grad_delta<Element>,
          .column_blocks = column_blocks<T>,
          .scan_delta_states = scan_delta_states<T>,
          .scan_delta_grad_states = scan_delta_grad_states<T>,
          .row_blocks = row_blocks,
          .scan_states = scan_states<T>,
          .chunk_forward = chunk_forward<Element>,
          .chunk_backward = chunk_backward<Element>,
          .head_forward_scratch_bytes = head_forward_scratch_bytes<Element>,
          .head_forward = head_forward<Element>,
          .head_backward_scratch_bytes = scratch_bytes<HeadGradientScratch<T>, LinearArgs>,
          .head_backward = head_backward<Element>,
          .step_scratch_bytes = scratch_bytes<StepScratch<T>, LinearArgs>,
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
