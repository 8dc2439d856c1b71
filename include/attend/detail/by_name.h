#pragma once

namespace attend::detail {

/// As the first field of a struct of parameters: the others can then be given by name only, `{.attn_mask =
/// mask}`, since `{mask}` would be the value of this one. For fields of one type whose order callers know
/// differently.
struct ByName {
  explicit ByName() = default;
};

}  // namespace attend::detail
