// A libFuzzer target: the reader ATTEND_FUZZ_PARSE must either load any sequence of bytes or throw
// c10::Error, and every element of what it loads must be readable.
#include <ATen/ops/from_blob.h>
#include <attend/checkpoint.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of the input, so that AddressSanitizer detects reads beyond its end.
  const auto bytes =
      at::from_blob(const_cast<uint8_t*>(data), {static_cast<int64_t>(size)}, at::TensorOptions(at::kByte))
          .clone();
  try {
    const auto state_dict = attend::ATTEND_FUZZ_PARSE(bytes);
    for (const auto& entry : state_dict.tensors) {
      // With strides of 0, a small file can contain a tensor of any size.
      if (entry.value().numel() < 1'000'000) static_cast<void>(entry.value().clone());
    }
  } catch (const c10::Error&) {  // rejected
  }
  return 0;
}
