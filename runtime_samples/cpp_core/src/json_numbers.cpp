#include "json_numbers.h"

#include <cmath>
#include <string>

#include "error.h"

namespace dq {
namespace {

float in_float32(const json::Value& value, const char* what) {
  const double number = value.number(what);
  if (!(std::fabs(number) <= 3.4028234663852886e38)) throw Error(std::string(what) + " has a number beyond float32");
  return static_cast<float>(number);
}

}  // namespace

std::vector<float> read_row(const json::Value& row, const char* what) {
  std::vector<float> numbers;
  for (const json::Value& value : row.list(what)) numbers.push_back(in_float32(value, what));
  return numbers;
}

float float_at(const json::Value& object, const char* key) { return in_float32(object.at(key), key); }

std::int64_t integer_within(const json::Value& object, const char* key, std::int64_t least, std::int64_t most) {
  const std::int64_t value = object.integer_at(key);
  if (value < least || value > most) {
    throw Error(std::string(key) + " must be " + std::to_string(least) + "-" + std::to_string(most) + ", got " + std::to_string(value));
  }
  return value;
}

}  // namespace dq
