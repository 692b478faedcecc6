#include "json_numbers.h"

#include <cmath>
#include <string>

#include "error.h"

namespace dq {

std::vector<float> read_row(const json::Value& row, const char* what) {
  std::vector<float> numbers;
  for (const json::Value& value : row.list(what)) {
    const double number = value.number(what);
    if (!(std::fabs(number) <= 3.4028234663852886e38)) throw Error(std::string(what) + " has a number beyond float32");
    numbers.push_back(static_cast<float>(number));
  }
  return numbers;
}

}  // namespace dq
