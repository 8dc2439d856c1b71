#include "cpu/runtime/instruction_set.h"

#include <ATen/Version.h>
#include <gtest/gtest.h>

namespace {

using attend::cpu::instruction_set_named;
using attend::cpu::InstructionSet;

TEST(Dispatch, KnowsTheNamesOfATen) {
  EXPECT_EQ(instruction_set_named("DEFAULT"), InstructionSet::baseline);
  EXPECT_EQ(instruction_set_named("NO AVX"), InstructionSet::baseline);
  EXPECT_EQ(instruction_set_named("AVX2"), InstructionSet::avx2);
  EXPECT_EQ(instruction_set_named("AVX512"), InstructionSet::avx512);
}

TEST(Dispatch, DistinguishesAnUnknownNameFromTheBaseline) {
  EXPECT_EQ(instruction_set_named("AVX10"), std::nullopt);
  EXPECT_EQ(instruction_set_named(""), std::nullopt);
}

#if defined(__x86_64__)
TEST(Dispatch, KnowsTheNameThatThisATenReports) {
  EXPECT_NE(instruction_set_named(at::get_cpu_capability()), std::nullopt) << at::get_cpu_capability();
}
#endif

}  // namespace
