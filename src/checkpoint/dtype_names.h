#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <optional>
#include <string_view>

namespace attend::checkpoint {

/// The names of a dtype in the two file formats.
struct DtypeNames {
  at::ScalarType dtype;
  std::string_view safetensors;  ///< the name in safetensors; empty if the format lacks the dtype
  std::string_view storage;      ///< the typed storage class of Python's torch; empty if there is none
  std::string_view python;       ///< the name of the dtype in Python's torch
};

constexpr std::array<DtypeNames, 25> kDtypes = {{
    {at::kBool, "BOOL", "BoolStorage", "bool"},
    {at::kByte, "U8", "ByteStorage", "uint8"},
    {at::kChar, "I8", "CharStorage", "int8"},
    {at::kShort, "I16", "ShortStorage", "int16"},
    {at::ScalarType::UInt16, "U16", "", "uint16"},
    {at::kInt, "I32", "IntStorage", "int32"},
    {at::ScalarType::UInt32, "U32", "", "uint32"},
    {at::kLong, "I64", "LongStorage", "int64"},
    {at::ScalarType::UInt64, "U64", "", "uint64"},
    {at::kHalf, "F16", "HalfStorage", "float16"},
    {at::kBFloat16, "BF16", "BFloat16Storage", "bfloat16"},
    {at::kFloat, "F32", "FloatStorage", "float32"},
    {at::kDouble, "F64", "DoubleStorage", "float64"},
    {at::kComplexFloat, "C64", "ComplexFloatStorage", "complex64"},
    {at::kComplexDouble, "", "ComplexDoubleStorage", "complex128"},
    {at::ScalarType::Float8_e5m2, "F8_E5M2", "", "float8_e5m2"},
    {at::ScalarType::Float8_e4m3fn, "F8_E4M3", "", "float8_e4m3fn"},
    {at::ScalarType::Float8_e5m2fnuz, "F8_E5M2FNUZ", "", "float8_e5m2fnuz"},
    {at::ScalarType::Float8_e4m3fnuz, "F8_E4M3FNUZ", "", "float8_e4m3fnuz"},
    {at::ScalarType::Float4_e2m1fn_x2, "F4", "", "float4_e2m1fn_x2"},
    {at::ScalarType::Float8_e8m0fnu, "F8_E8M0", "", "float8_e8m0fnu"},
    {at::ScalarType::ComplexHalf, "", "", "complex32"},
    {at::kQInt8, "", "QInt8Storage", "qint8"},
    {at::kQUInt8, "", "QUInt8Storage", "quint8"},
    {at::kQInt32, "", "QInt32Storage", "qint32"},
}};

/// Returns the dtype that a format calls `name`, as in `dtype_named(&DtypeNames::safetensors, "F32")`.
inline std::optional<at::ScalarType> dtype_named(std::string_view DtypeNames::*format,
                                                 std::string_view name) {
  for (const auto& names : kDtypes) {
    if (!name.empty() && names.*format == name) return names.dtype;
  }
  return {};
}

/// Returns the name of a dtype in a format; empty if the format lacks the dtype.
inline std::string_view dtype_name(std::string_view DtypeNames::*format, at::ScalarType dtype) {
  for (const auto& names : kDtypes) {
    if (names.dtype == dtype) return names.*format;
  }
  return {};
}

}  // namespace attend::checkpoint
