// The kernels for bfloat16 of processors that have products of it; ATTEND_KERNELS is its name for the table.

#include "cpu/attention/table.h"

namespace attend::cpu {

AttentionKernels ATTEND_KERNELS();
AttentionKernels ATTEND_KERNELS() { return attention_table<BFloat16>(); }

}  // namespace attend::cpu
