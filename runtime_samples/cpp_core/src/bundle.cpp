#include "bundle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bundle_files.h"
#include "error.h"
#include "input_rows.h"
#include "number_text.h"
#include "sha256.h"

namespace dq {
namespace fs = std::filesystem;

namespace {

constexpr const char* reference_file = "reference.safetensors";
constexpr std::size_t most_elements = 2147483647;
constexpr std::int64_t most_steps = 100000;
constexpr double alike = 1e-6;  // relative: guidance is float32 here, and text on the command line

void check_name(const std::string& name, const char* what) {
  if (!is_plain(name)) throw Error(std::string("the name of ") + what + " must be letters, digits, _ . and -, got " + name);
}

std::vector<Port> read_ports(const json::Value& bundle, const char* what) {
  std::vector<Port> ports;
  for (const json::Value& row : bundle.list_at(what)) {
    Port port{row.text_at("name"), row.text_at("dtype"), {}};
    check_name(port.name, what);
    for (const json::Value& axis : row.list_at("shape")) port.shape.push_back(axis.integer("shape"));
    if (port.dtype != "float32" && port.dtype != "int64") {
      throw Error("dtype of " + port.name + " must be float32 or int64, got " + port.dtype);
    }
    const bool positive = std::all_of(port.shape.begin(), port.shape.end(), [](std::int64_t axis) { return axis > 0; });
    if (port.shape.empty() || port.shape[0] != 1 || !positive) {
      throw Error("shape of " + port.name + " must be batch 1 and positive, got " + to_string(port.shape));
    }
    if (port.elements() > most_elements) {
      throw Error("shape of " + port.name + " is too large: " + to_string(port.shape));
    }
    ports.push_back(std::move(port));
  }
  return ports;
}

void expect(const Port& port, const Shape& shape) {
  if (port.dtype == "float32" && port.shape == shape) return;
  throw Error(port.name + " must be float32 " + to_string(shape) + ", got " + port.dtype + " " + to_string(port.shape));
}

void check_ports(const Bundle& bundle) {
  if (bundle.sample_shape().size() < 3) {
    throw Error("the output must be (1, C, H, W) or have other axes behind the channels, such as (1, C, T), got " + to_string(bundle.sample_shape()));
  }
  const auto count = [&](const char* name) {
    return std::count_if(bundle.inputs.begin(), bundle.inputs.end(), [&](const Port& port) { return port.name == name; });
  };
  if (count("sample") != 1) throw Error("inputs must list sample once");
  if (count("timestep") + count("step_vectors") != 1) {
    throw Error("inputs must list either timestep or step_vectors, once");
  }
  expect(bundle.output, bundle.sample_shape());
  for (const Port& port : bundle.inputs) {
    if (port.name == "sample") expect(port, bundle.sample_shape());
    if (port.name == "timestep") expect(port, {1});
    if (has_rows(port)) expect(port, {1, port.shape.back()});
    if (count(port.name.c_str()) != 1) throw Error("inputs list " + port.name + " twice");
  }
}

void check_channels(const Table& table, const Bundle& bundle) {
  const auto channels = static_cast<std::size_t>(bundle.sample_shape()[1]);
  if (!table.correction || table.correction->channels() == channels) return;
  throw Error("correction must have one number for each of " + std::to_string(channels) + " channels, got " +
              std::to_string(table.correction->channels()));
}

/// `may_be_empty`: of a sampler with fewer steps than were calibrated.
std::vector<std::size_t> read_step_groups(const json::Value& bundle, std::size_t calls, bool may_be_empty) {
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> group_of_step(calls, none);
  std::size_t group = 0;
  std::int64_t next = 0;
  for (const json::Value& steps : bundle.list_at("step_groups")) {
    if (!may_be_empty && steps.list("step_groups").empty()) throw Error("step_groups must hold no empty group");
    for (const json::Value& step : steps.list("step_groups")) {
      const std::int64_t k = step.integer("step_groups");
      if (k < 0 || static_cast<std::uint64_t>(k) >= calls || group_of_step[static_cast<std::size_t>(k)] != none) {
        throw Error("step_groups must list the steps 0-" + std::to_string(calls - 1) + " once, got " + std::to_string(k));
      }
      if (k != next++) throw Error("step_groups must list the steps in order, got " + std::to_string(k));
      group_of_step[static_cast<std::size_t>(k)] = group;
    }
    ++group;
  }
  const auto missing = std::find(group_of_step.begin(), group_of_step.end(), none);
  if (missing != group_of_step.end()) {
    throw Error("step_groups leave out step " + std::to_string(missing - group_of_step.begin()));
  }
  return group_of_step;
}

void check_kind(const json::Value& bundle, const std::string& target) {
  if (const json::Value* schema = bundle.find("schema"); !schema || schema->text("schema") != "dq-toolchain/bundle") {
    throw Error("it is no dq-toolchain/bundle");
  }
  if (const std::int64_t version = bundle.integer_at("schema_version"); version != 1) {
    throw Error("schema_version " + std::to_string(version) + " is not supported, allowed is 1");
  }
  if (const std::string& found = bundle.text_at("target"); target != any_target && found != target) {
    throw Error("the bundle is for target " + found + ", this program runs only --target " + target);
  }
}

/// Everything that is named elsewhere must be among the files whose hashes were checked.
void check_files(const Bundle& bundle) {
  bundle.expect_listed(bundle.program, "the program ");
  bundle.expect_listed(reference_file);
  for (const Sampling& sampling : bundle.samplings) {
    for (const std::string& name : {sampling.reference, sampling.step_vectors}) {
      if (!name.empty()) bundle.expect_listed(name);
    }
  }
  for (const Port& port : bundle.inputs) {
    if (has_rows(port)) bundle.expect_listed(rows_file(port));
  }
}

float read_guidance(const json::Value& json) {
  const double guidance = json.number_at("guidance");
  if (!(std::fabs(guidance) <= 1e6)) throw Error("guidance must be within a million, got " + in_short(guidance));
  return static_cast<float>(guidance);
}

std::size_t read_steps(const json::Value& json) {
  const std::int64_t steps = json.integer_at("steps");
  if (steps < 1 || steps > most_steps) throw Error("steps must be 1-" + std::to_string(most_steps) + ", got " + std::to_string(steps));
  return static_cast<std::size_t>(steps);
}

bool is_of(std::size_t steps, double guidance, std::size_t wanted_steps, double wanted_guidance) {
  const double size = std::max(std::fabs(guidance), std::fabs(wanted_guidance));
  return steps == wanted_steps && std::fabs(guidance - wanted_guidance) <= alike * size;
}

void read_samplings(const json::Value& json, Bundle& bundle) {
  for (const json::Value& row : json.list_at("samplings")) {
    Sampling sampling;
    sampling.steps = read_steps(row);
    sampling.guidance = read_guidance(row);
    sampling.table = Table::from_json(row.at("table"));
    check_channels(sampling.table, bundle);
    sampling.group_of_step = read_step_groups(row, sampling.table.calls(), true);
    if (const std::size_t groups = row.list_at("step_groups").size(); groups != bundle.groups) {
      throw Error("samplings must have " + std::to_string(bundle.groups) + " step groups, got " + std::to_string(groups));
    }
    sampling.reference = row.text_at("reference");
    if (!stays_inside(sampling.reference)) throw Error("reference names a place outside the bundle: " + sampling.reference);
    const json::Value* vectors = row.find("step_vectors");
    if ((vectors != nullptr) != (bundle.input("step_vectors") != nullptr)) {
      throw Error("samplings must name a file of step_vectors if the program takes them, and none otherwise");
    }
    if (vectors != nullptr) sampling.step_vectors = vectors->text("step_vectors");
    if (vectors != nullptr && !stays_inside(sampling.step_vectors)) {
      throw Error("step_vectors names a place outside the bundle: " + sampling.step_vectors);
    }
    const auto same = [&](const Sampling& other) { return is_of(other.steps, other.guidance, sampling.steps, sampling.guidance); };
    if (std::any_of(bundle.samplings.begin(), bundle.samplings.end(), same)) throw Error("samplings must hold each once");
    bundle.samplings.push_back(std::move(sampling));
  }
}

Bundle from_json(const json::Value& json, const std::string& target) {
  check_kind(json, target);
  Bundle bundle;
  bundle.target = json.text_at("target");
  bundle.program = json.text_at("program");
  bundle.inputs = read_ports(json, "inputs");
  const std::vector<Port> outputs = read_ports(json, "outputs");
  if (outputs.size() != 1) throw Error("there must be 1 output, got " + std::to_string(outputs.size()));
  bundle.output = outputs[0];
  check_ports(bundle);
  bundle.table = Table::from_json(json.at("table"));
  check_channels(bundle.table, bundle);
  bundle.group_of_step = read_step_groups(json, bundle.table.calls(), false);
  bundle.groups = json.list_at("step_groups").size();
  for (const json::Value& method : json.list_at("methods")) {
    check_name(method.text("methods"), "methods");
    bundle.methods.push_back(method.text("methods"));
  }
  if (bundle.methods.size() != 1 && bundle.methods.size() != bundle.groups) {
    throw Error("there must be 1 method or one for each of " + std::to_string(bundle.groups) + " step groups, got " +
                std::to_string(bundle.methods.size()));
  }
  bundle.guidance = read_guidance(json);
  if (json.find("samplings") != nullptr) {
    bundle.steps = read_steps(json);
    read_samplings(json, bundle);
  }
  return bundle;
}

std::string name_of(std::size_t steps, double guidance) {
  return std::to_string(steps) + " steps, guidance " + in_short(guidance);
}

}  // namespace

Bundle Bundle::at(std::optional<std::size_t> wanted_steps, std::optional<double> wanted_guidance) const {
  const std::size_t own = steps.value_or(table.calls()), count = wanted_steps.value_or(own);
  const double scale = wanted_guidance.value_or(guidance);
  if (is_of(own, guidance, count, scale)) return *this;
  std::string held = name_of(own, guidance);
  for (const Sampling& sampling : samplings) {
    held += "; " + name_of(sampling.steps, sampling.guidance);
    if (!is_of(sampling.steps, sampling.guidance, count, scale)) continue;
    Bundle chosen = *this;
    chosen.steps = sampling.steps;
    chosen.guidance = sampling.guidance;
    chosen.table = sampling.table;
    chosen.group_of_step = sampling.group_of_step;
    chosen.reference = sampling.reference;
    if (step_vectors) chosen.step_vectors = read_rows(chosen, "step_vectors", chosen.table.calls(), sampling.step_vectors);
    return chosen;
  }
  throw Error("--steps and --guidance: got " + name_of(count, scale) + ", the bundle holds " + held +
              "; choose of these, or export with others (--steps, --guidance)");
}

void Bundle::expect_listed(const std::string& name, const char* what) const {
  if (!dq::lists(files, name)) throw Error("files must list " + (what + name));
}

Bundle Bundle::parse(std::string_view text, const std::string& target) { return from_json(json::parse(text), target); }

Bundle Bundle::load(const fs::path& folder, const std::string& target) {
  const fs::path path = folder / "bundle.json";
  const Bytes bytes = read_file(path);
  try {
    const json::Value json = json::parse(as_text(bytes));
    Bundle bundle = from_json(json, target);
    bundle.folder = folder;
    bundle.sha256 = dq::sha256(bytes.data(), bytes.size());
    if (!stays_inside(bundle.program)) throw Error("program names a place outside the bundle: " + bundle.program);
    bundle.files = checked_files(folder, json);
    check_files(bundle);
    bundle.ranges = read_rows(bundle, "ranges", bundle.groups);
    bundle.step_vectors = read_rows(bundle, "step_vectors", bundle.table.calls());
    return bundle;
  } catch (const Error& error) {
    throw Error(path.string() + ": " + error.what() + export_again);
  }
}

}  // namespace dq
