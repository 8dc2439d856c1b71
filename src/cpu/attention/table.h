#pragma once

#include "cpu/attention/backward.h"
#include "cpu/attention/forward.h"

namespace attend::cpu {
namespace {

/// The kernels for an element type, of the instruction set that this is compiled for.
template <typename Element>
AttentionKernels attention_table() {
  return {
      kTileKeys,     kLanes<Compute<Element>>,  blocks_of,        forward_scratch<Element>, forward<Element>,
      join<Element>, backward_scratch<Element>, backward<Element>};
}

}  // namespace
}  // namespace attend::cpu
