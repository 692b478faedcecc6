#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bundle_files.h"
#include "json.h"
#include "safetensors.h"

namespace dq {

/// An input or output of the lowered program.
struct Port {
  std::string name;
  std::string dtype;  // float32 or int64
  Shape shape;

  std::size_t elements() const { return count_elements(shape); }
  /// Whether the held-out seeds say what it is given: neither the latent, nor the time, nor ranges.
  bool is_conditioning() const { return name != "sample" && name != "timestep" && name != "step_vectors" && name != "ranges"; }
};

/// What stands around the network, N rows of one number per channel: it is given input_scale[k] x[k] + input_shift[k], and
/// after guidance f becomes f * output_scale[k] + output_shift[k].
struct Correction {
  std::vector<std::vector<float>> input_shift, output_scale, output_shift;

  std::size_t channels() const { return input_shift[0].size(); }
  /// What the network is given in step k; x is (C, H, W), already scaled.
  std::vector<float> before(std::vector<float> x, std::size_t k) const;
  /// What the sampler is given in step k; f is (C, H, W), after guidance.
  std::vector<float> after(std::vector<float> f, std::size_t k) const;

  /// Throws Error: a key is missing or unknown, rows are not `calls` or not alike, or a number is not finite in float32.
  static Correction from_json(const json::Value& correction, std::size_t calls);
};

/// The sampler: x[k+1] = sum_i a[k][i] x[k-i] + sum_j b[k][j] f[k-j] + c[k] noise[k], f[k] = network(input_scale[k] x[k]).
struct Table {
  std::vector<float> timesteps, c, input_scale;  // N each
  std::vector<std::vector<float>> a, b;          // N rows
  std::optional<Correction> correction;          // around the network, where there is one
  std::optional<float> init_noise_sigma;         // x[0] is this times noise; only `generate` draws noise

  std::size_t calls() const { return timesteps.size(); }
  /// Whether any call adds noise.
  bool is_stochastic() const;

  /// Throws Error: lengths differ, a number is not finite in float32, or a row reaches before the start.
  static Table from_json(const json::Value& table);
};

/// A further step count or guidance scale for the same program.
struct Sampling {
  std::size_t steps = 0;
  float guidance = 1;
  Table table;
  std::vector<std::size_t> group_of_step;
  std::string reference;     // relative to the folder
  std::string step_vectors;  // the same; empty where the program takes the timestep
};

/// For Bundle::load: a program that replays a recording takes them all.
inline constexpr const char* any_target = "";

/// bundle.json, as far as a program on a device needs it, checked so that the rest may rely on it.
struct Bundle {
  std::filesystem::path folder;
  std::string target, sha256;             // sha256 is that of bundle.json
  std::string program;                    // relative to the folder
  std::vector<Port> inputs;
  Port output;
  std::vector<std::size_t> group_of_step;
  std::size_t groups = 0;
  std::vector<std::string> methods;
  Table table;
  float guidance = 1;
  std::optional<FloatTensor> ranges;        // (groups, R), where the program takes them
  std::optional<FloatTensor> step_vectors;  // (N, V), a row per step of `table`, where the program takes them for the timestep
  std::optional<std::size_t> steps;       // of `table`, only where there are `samplings` beside it
  std::vector<Sampling> samplings;
  std::string reference = "reference.safetensors";  // of `table`
  FileHashes files;                                 // those that were checked

  /// The input of that name, null if there is none.
  const Port* input(const std::string& name) const {
    const auto found = std::find_if(inputs.begin(), inputs.end(), [&](const Port& port) { return port.name == name; });
    return found == inputs.end() ? nullptr : &*found;
  }
  bool is_guided() const { return guidance != 1.0F; }
  /// Throws Error unless `files` has the name, or a file in a folder of that name.
  void expect_listed(const std::string& name, const char* what = "") const;
  std::filesystem::path program_path() const { return folder / program; }
  const Shape& sample_shape() const { return output.shape; }
  std::size_t method_of_step(std::size_t k) const { return methods.size() > 1 ? group_of_step[k] : 0; }

  /// The bundle at one of its step counts and guidance scales; none: the calibrated one. Throws Error: it does not hold it.
  Bundle at(std::optional<std::size_t> wanted_steps, std::optional<double> wanted_guidance) const;

  /// What bundle.json says, without looking at other files. Throws Error.
  static Bundle parse(std::string_view text, const std::string& target);
  /// The same of a folder, with the hashes of all its files checked, ranges and step vectors read. Throws Error.
  static Bundle load(const std::filesystem::path& folder, const std::string& target);
};

}  // namespace dq
