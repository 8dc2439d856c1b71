// For libFuzzer: a reader of checkpoints, ATTEND_FUZZ_PARSE, must take or refuse any bytes, and what it takes
// can be read.
#include <ATen/ops/from_blob.h>
#include <attend/checkpoint.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy, whose end AddressSanitizer knows.
  const auto bytes =
      at::from_blob(const_cast<uint8_t*>(data), {static_cast<int64_t>(size)}, at::TensorOptions(at::kByte))
          .clone();
  try {
    const auto checkpoint = attend::ATTEND_FUZZ_PARSE(bytes);
    for (const auto& entry : checkpoint.tensors) {
      // Strides of 0 make a small file's tensor as large as they like.
      if (entry.value().numel() < 1'000'000) static_cast<void>(entry.value().clone());
    }
  } catch (const c10::Error&) {  // refused
  }
  return 0;
}
