#pragma once

/// Exports a class or function from the library. The library is built with hidden visibility, so that
/// programs can link only to exported names.
#define ATTEND_API __attribute__((visibility("default")))
