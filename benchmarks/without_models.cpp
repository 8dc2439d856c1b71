// Replaces encode.cpp if attend::models is not built.
#include "encode.h"
#include "row.h"

namespace attend::benchmarks {

int print_encoding_time(const std::string&, const std::string&, const std::string&) { return 1; }

std::vector<Row> encode_rows() { return {}; }

}  // namespace attend::benchmarks
