#pragma once

namespace attend::cpu {

/// The types of the elements of tensors that kernels read and write.
enum class ElementType { float64, bfloat16, float16, float32 };

/// A value for each element type.
template <typename Value>
struct PerElementType {
  Value float64, bfloat16, float16, float32;

  const Value& operator[](ElementType type) const {
    switch (type) {
      case ElementType::float64:
        return float64;
      case ElementType::bfloat16:
        return bfloat16;
      case ElementType::float16:
        return float16;
      case ElementType::float32:
        break;
    }
    return float32;
  }
};

}  // namespace attend::cpu
