#include <algorithm>
#include <cmath>
#include <string>

#include "bundle.h"
#include "error.h"
#include "json_numbers.h"

namespace dq {
namespace {

std::vector<std::vector<float>> read_rows(const json::Value& table, const char* what) {
  std::vector<std::vector<float>> rows;
  for (const json::Value& row : table.list_at(what)) {
    rows.push_back(read_row(row, what));
    const std::vector<float>& last = rows.back();
    if (last.empty() || last.size() != rows.front().size()) {
      throw Error(std::string(what) + " must have rows of as many numbers each, 1 or more");
    }
    const std::size_t reach = std::min(rows.size(), last.size());
    if (std::any_of(last.begin() + static_cast<std::ptrdiff_t>(reach), last.end(), [](float v) { return v != 0; })) {
      throw Error(std::string(what) + " looks back before the start of the run");
    }
  }
  return rows;
}

}  // namespace

bool Table::is_stochastic() const {
  return std::any_of(c.begin(), c.end(), [](float value) { return value != 0; });
}

Table Table::from_json(const json::Value& table) {
  Table read;
  read.timesteps = read_row(table.at("timesteps"), "timesteps");
  read.c = read_row(table.at("c"), "c");
  read.input_scale = read_row(table.at("input_scale"), "input_scale");
  read.a = read_rows(table, "a");
  read.b = read_rows(table, "b");
  const std::size_t calls = read.calls();
  if (calls == 0) throw Error("the table has no timesteps, at least 1 is needed");
  for (const std::size_t length : {read.c.size(), read.input_scale.size(), read.a.size(), read.b.size()}) {
    if (length != calls) {
      throw Error("the table has " + std::to_string(length) + " rows for " + std::to_string(calls) + " timesteps");
    }
  }
  if (const json::Value* correction = table.find("correction")) read.correction = Correction::from_json(*correction, calls);
  if (const json::Value* sigma = table.find("init_noise_sigma")) {
    read.init_noise_sigma = static_cast<float>(sigma->number("init_noise_sigma"));
    if (!(*read.init_noise_sigma > 0 && std::isfinite(*read.init_noise_sigma))) throw Error("init_noise_sigma must be above 0 and finite");
  }
  return read;
}

}  // namespace dq
