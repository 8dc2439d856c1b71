#include <attend/score_mod.h>

#include <limits>

#include "core/checks.h"
#include "core/score_mod_node.h"

namespace attend {

ScoreMod softcap(double cap) {
  using Float = std::numeric_limits<float>;
  if (!(cap >= Float::min() && cap <= Float::max())) {
    checks::fail("softcap", "cap", "a positive number in the range of float32", c10::str(cap));
  }
  return make_score_mod(ScoreModNode::Softcap{cap});
}

}  // namespace attend
