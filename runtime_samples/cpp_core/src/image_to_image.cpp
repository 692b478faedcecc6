#include "image_to_image.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bundle_files.h"
#include "error.h"
#include "json_numbers.h"
#include "number_text.h"

namespace dq {
namespace {

constexpr std::size_t longest_count = 6;  // digits
constexpr std::int64_t most_calls = 1000000;
constexpr int thousandths = 1000;

Start read_start(const json::Value& row) {
  Start start{static_cast<std::size_t>(integer_within(row, "call", 0, most_calls)), float_at(row, "signal"), float_at(row, "noise"), {}};
  if (const json::Value& table = row.at("table"); !table.is_null()) start.table = Table::from_json(table);
  return start;
}

std::vector<Start> read_starts(const json::Member& member) {
  const std::string& count = member.name;
  const bool digits = !count.empty() && count.find_first_not_of("0123456789") == std::string::npos && count[0] != '0';
  if (!digits || count.size() > longest_count) throw Error("starts must be by step count, got '" + count + "'");
  std::vector<Start> starts;
  for (const json::Value& row : member.value.list("starts")) starts.push_back(read_start(row));
  if (std::to_string(starts.size()) != count) {
    throw Error("starts must hold one for each of " + count + " steps, got " + std::to_string(starts.size()));
  }
  return starts;
}

std::size_t step_of(double strength, std::size_t steps, bool rounds_up) {
  const std::size_t step = first_step(strength, steps, rounds_up);
  if (step < steps) return step;
  int least = 1;
  while (least < thousandths && first_step(static_cast<double>(least) / thousandths, steps, rounds_up) == steps) ++least;
  throw Error("--strength " + in_short(strength) + " leaves none of " + std::to_string(steps) + " steps, allowed is " +
              in_short(static_cast<double>(least) / thousandths) + " or more; raise it, or take more --steps");
}

const std::vector<Start>& starts_of(const ImageToImage& image, std::optional<std::size_t> steps) {
  if (!steps && image.starts.size() == 1) return image.starts.begin()->second;  // the only count there is
  const auto found = steps ? image.starts.find(*steps) : image.starts.end();
  if (found != image.starts.end()) return found->second;
  std::string held;
  for (const auto& [count, starts] : image.starts) held += (held.empty() ? "" : ", ") + std::to_string(count);
  throw Error("--image: there are no starts with a picture for " + (steps ? std::to_string(*steps) + " steps" : "this sampler") + ", but for " +
              held + "; choose of these (--steps)");
}

template <typename Row>
std::vector<Row> from(const std::vector<Row>& rows, std::size_t first) {
  return {rows.begin() + static_cast<std::ptrdiff_t>(first), rows.end()};
}

bool looks_back(const std::vector<std::vector<float>>& rows, std::size_t first) {
  for (std::size_t j = first; j < rows.size(); ++j) {
    for (std::size_t i = j - first + 1; i < rows[j].size(); ++i) {
      if (rows[j][i] != 0) return true;
    }
  }
  return false;
}

Table tail(const Table& table, std::size_t first) {
  if (looks_back(table.a, first) || looks_back(table.b, first)) {
    throw Error("image_to_image: a start at call " + std::to_string(first) + " looks back on earlier calls, and has no table of its own" + export_again);
  }
  Table rest;
  rest.timesteps = from(table.timesteps, first);
  rest.c = from(table.c, first);
  rest.input_scale = from(table.input_scale, first);
  rest.a = from(table.a, first);
  rest.b = from(table.b, first);
  return rest;
}

Correction tail(const Correction& correction, std::size_t first) {
  return {from(correction.input_shift, first), from(correction.output_scale, first), from(correction.output_shift, first)};
}

FloatTensor tail(const FloatTensor& rows, std::size_t first) {
  const std::size_t width = static_cast<std::size_t>(rows.shape[1]);
  return {{rows.shape[0] - static_cast<std::int64_t>(first), rows.shape[1]}, from(rows.values, first * width)};
}

Bundle remaining(const Bundle& bundle, const Start& start) {
  const std::size_t calls = bundle.table.calls();
  const std::size_t own = start.table ? start.table->calls() : calls - std::min(start.call, calls);
  if (start.call >= calls || own != calls - start.call) {
    throw Error("image_to_image: a start at call " + std::to_string(start.call) + " with " + std::to_string(own) + " calls does not belong to " +
                std::to_string(calls) + " calls" + export_again);
  }
  Bundle rest = bundle;
  rest.table = start.table ? *start.table : tail(bundle.table, start.call);
  rest.table.correction.reset();
  if (bundle.table.correction) rest.table.correction = tail(*bundle.table.correction, start.call);
  rest.group_of_step = from(bundle.group_of_step, start.call);
  if (bundle.step_vectors) rest.step_vectors = tail(*bundle.step_vectors, start.call);
  return rest;
}

}  // namespace

std::size_t first_step(double strength, std::size_t steps, bool rounds_up) {
  const double all = static_cast<double>(steps);
  const double step = rounds_up ? all - std::min(std::floor(all * strength), all) : std::floor(all - std::min(all * strength, all));
  return static_cast<std::size_t>(step);
}

ImageToImage ImageToImage::from_json(const json::Value& json) {
  ImageToImage image;
  image.program = path_at(json, "program");
  integer_within(json, "channels", 3, 3);
  image.height = static_cast<std::size_t>(integer_within(json, "height", 1, largest_side));
  image.width = static_cast<std::size_t>(integer_within(json, "width", 1, largest_side));
  for (const json::Value& output : json.list_at("outputs")) image.outputs.push_back(output.text("outputs"));
  const std::vector<std::string> both{"mean", "deviation"};
  if (image.outputs != both && image.outputs != std::vector<std::string>{"mean"}) throw Error("outputs must be mean, or mean and deviation");
  const std::string& rounds = json.text_at("start_rounds");
  if (rounds != "up" && rounds != "down") throw Error("start_rounds must be up or down, got " + rounds);
  image.rounds_up = rounds == "up";
  for (const json::Member& member : json.object_at("starts")) {
    std::vector<Start> starts = read_starts(member);
    image.starts[starts.size()] = std::move(starts);
  }
  if (image.starts.empty()) throw Error("starts must not be empty");
  return image;
}

Beginning beginning_of(const ImageToImage& image, const Bundle& bundle, double strength) {
  const std::vector<Start>& starts = starts_of(image, bundle.steps);
  const std::size_t step = step_of(strength, starts.size(), image.rounds_up);
  return {step, starts.size(), starts[step], remaining(bundle, starts[step])};
}

}  // namespace dq
