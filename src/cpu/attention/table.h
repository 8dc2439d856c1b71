#pragma once

#include "cpu/attention/backward.h"
#include "cpu/attention/forward.h"

namespace attend::cpu {
namespace {

/// The kernels for an element type, of the instruction set that this is compiled for.
template <typename Element>
AttentionKernels attention_table() {
  return {.tile_keys = kTileKeys,
          .lanes = kLanes<Compute<Element>>,
          .blocks = blocks_of,
          .forward_scratch = forward_scratch<Element>,
          .forward = forward<Element>,
          .join = join<Element>,
          .backward_scratch = backward_scratch<Element>,
          .backward = backward<Element>};
}

}  // namespace
}  // namespace attend::cpu
