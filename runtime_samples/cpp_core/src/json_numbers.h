#pragma once

#include <cstdint>
#include <vector>

#include "json.h"

namespace dq {

/// A list of numbers in float32. Throws Error: it is none, or a number is beyond float32.
std::vector<float> read_row(const json::Value& row, const char* what);

/// The number `key` of an object, in float32. Throws Error: it is none, or beyond float32.
float float_at(const json::Value& object, const char* key);

/// The integer `key` of an object. Throws Error: it is none, or not within.
std::int64_t integer_within(const json::Value& object, const char* key, std::int64_t least, std::int64_t most);

}  // namespace dq
