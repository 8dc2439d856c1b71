// A libFuzzer target: the reader of tokenizer.json must either load any sequence of bytes or throw
// c10::Error, and what it loads must encode and decode texts or throw c10::Error.
#include <attend/text/tokenizer.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = attend::text::Tokenizer::parse(json);
    for (const auto* const text :
         {"", "Hello, world it's\n <s>", "\u00e9\u0323 \u4e2d\u6587 \U0001f600\xff \xe2\x82"}) {
      static_cast<void>(tokenizer.decode(tokenizer.encode(text).ids));
    }
    static_cast<void>(tokenizer.encode_pair("a", "b c"));
  } catch (const c10::Error&) {  // rejected
  }
  return 0;
}
