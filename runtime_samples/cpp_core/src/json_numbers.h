#pragma once

#include <vector>

#include "json.h"

namespace dq {

/// A list of numbers in float32. Throws Error: it is none, or a number is beyond float32.
std::vector<float> read_row(const json::Value& row, const char* what);

}  // namespace dq
