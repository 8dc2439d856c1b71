#pragma once

// The library is built with hidden visibility: only what bears this mark can be linked to.
#define ATTEND_API __attribute__((visibility("default")))
