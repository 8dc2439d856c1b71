// The bfloat16 kernels for processors that multiply bfloat16 in pairs; ATTEND_KERNELS is the name of the
// function that returns the kernels.

#include "cpu/attention/table.h"

namespace attend::cpu {

AttentionKernels ATTEND_KERNELS();
AttentionKernels ATTEND_KERNELS() { return attention_table<BFloat16>(); }

}  // namespace attend::cpu
