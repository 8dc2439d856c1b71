#pragma once

#include "ops/call.h"

namespace attend::ops {

// Kernels of the public operators, on every device and with autograd.
void attention(const c10::OperatorHandle&, Stack* stack);
void attention_with_lse(const c10::OperatorHandle&, Stack* stack);

// Kernels of the private operators, which are what a traced graph holds: the fused kernels, and their shapes.
void attention_forward_cpu(const c10::OperatorHandle&, Stack* stack);
void attention_forward_meta(const c10::OperatorHandle&, Stack* stack);
void attention_backward_cpu(const c10::OperatorHandle&, Stack* stack);
void attention_backward_meta(const c10::OperatorHandle&, Stack* stack);

}  // namespace attend::ops
