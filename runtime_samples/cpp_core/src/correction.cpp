#include <string>
#include <utility>

#include "bundle.h"
#include "error.h"
#include "json_numbers.h"

namespace dq {
namespace {

using Rows = std::vector<std::vector<float>>;

Rows read_rows(const json::Value& correction, const char* key, std::size_t calls) {
  const std::string what = std::string("correction.") + key;
  Rows rows;
  for (const json::Value& row : correction.at(key).list(what.c_str())) rows.push_back(read_row(row, what.c_str()));
  if (rows.size() != calls) {
    throw Error(what + " has " + std::to_string(rows.size()) + " rows for " + std::to_string(calls) + " timesteps");
  }
  return rows;
}

}  // namespace

std::vector<float> Correction::before(std::vector<float> x, std::size_t k) const {
  const std::size_t area = x.size() / channels();
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += input_shift[k][i / area];
  return x;
}

std::vector<float> Correction::after(std::vector<float> f, std::size_t k) const {
  const std::size_t area = f.size() / channels();
  for (std::size_t i = 0; i < f.size(); ++i) f[i] = f[i] * output_scale[k][i / area] + output_shift[k][i / area];
  return f;
}

Correction Correction::from_json(const json::Value& correction, std::size_t calls) {
  constexpr std::size_t keys = 3;
  if (const std::size_t found = correction.object("correction").size(); found != keys) {
    throw Error("correction must have exactly the keys input_shift, output_scale and output_shift, got " +
                std::to_string(found) + " keys");
  }
  Correction read{read_rows(correction, "input_shift", calls), read_rows(correction, "output_scale", calls),
                  read_rows(correction, "output_shift", calls)};
  const std::size_t channels = read.channels();
  for (const Rows* rows : {&read.input_shift, &read.output_scale, &read.output_shift}) {
    for (const std::vector<float>& row : *rows) {
      if (row.size() == channels && channels > 0) continue;
      throw Error("rows of correction must have as many numbers each, 1 or more, got " + std::to_string(channels) +
                  " and " + std::to_string(row.size()));
    }
  }
  return read;
}

}  // namespace dq
