#pragma once

#include "cpu/attention/backward.h"
#include "cpu/attention/forward.h"

namespace attend::cpu {
namespace {

/// Returns the kernels for an element type, for the instruction set that the including file is compiled for.
template <typename Element>
AttentionKernels attention_table() {
  return {.tile_keys = kTileKeys,
          .lanes = kLanes<Compute<Element>>,
          .blocks = blocks_of,
          .forward_scratch_bytes = forward_scratch_bytes<Element>,
          .forward = forward<Element>,
          .merge_splits = merge_splits<Element>,
          .backward_scratch_bytes = backward_scratch_bytes<Element>,
          .backward = backward<Element>};
}

}  // namespace
}  // namespace attend::cpu
