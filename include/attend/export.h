#pragma once

/// Exports a class or a function from the library, which is built with hidden visibility: only what has this
/// mark can be linked to.
#define ATTEND_API __attribute__((visibility("default")))
