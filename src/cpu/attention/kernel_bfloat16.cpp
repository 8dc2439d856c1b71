// The kernels for bfloat16 of processors that multiply it in pairs; ATTEND_KERNELS is the name of the
// function that returns them.

#include "cpu/attention/table.h"

namespace attend::cpu {

AttentionKernels ATTEND_KERNELS();
AttentionKernels ATTEND_KERNELS() { return attention_table<BFloat16>(); }

}  // namespace attend::cpu
