#pragma once

#include "ops/call.h"

namespace attend::ops {

// The public operator, on every device and with autograd.
void linear_attention(const c10::OperatorHandle&, Stack* stack);

// Kernels of the private operators, which are what a traced graph holds.
void linear_attention_forward_cpu(const c10::OperatorHandle&, Stack* stack);
void linear_attention_forward_meta(const c10::OperatorHandle&, Stack* stack);
void linear_attention_backward_cpu(const c10::OperatorHandle&, Stack* stack);
void linear_attention_backward_meta(const c10::OperatorHandle&, Stack* stack);

}  // namespace attend::ops
