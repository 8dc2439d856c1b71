// Compiled once for each instruction set; ATTEND_KERNELS is its name for the table.

#include "attention_backward.h"
#include "attention_forward.h"

namespace attend::cpu {
namespace {

template <typename Element>
AttentionKernels table() {
  return {
      kTileKeys,     kLanes<Compute<Element>>,  blocks_of,        forward_scratch<Element>, forward<Element>,
      join<Element>, backward_scratch<Element>, backward<Element>};
}

}  // namespace

AttentionKernels ATTEND_KERNELS(ElementType type);
AttentionKernels ATTEND_KERNELS(ElementType type) {
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
