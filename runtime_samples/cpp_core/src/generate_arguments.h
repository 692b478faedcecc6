#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "picture.h"

namespace dq {

/// As diffusers has it.
inline constexpr double usual_strength = 0.8;

struct GenerateArguments {
  std::filesystem::path bundle, out;
  std::optional<std::filesystem::path> latents;
  std::optional<std::string> prompt;
  std::string negative_prompt;
  std::optional<std::int64_t> label;   // of a model that draws a class
  std::optional<std::filesystem::path> image;  // a PNG file to begin with, in the place of noise
  std::optional<Picture> picture;              // what is in it: who draws reads it
  double strength = usual_strength;            // in (0, 1]: how much of it is changed
  std::uint64_t seed = 0;
  std::optional<std::size_t> steps;    // none: the calibrated ones
  std::optional<double> guidance;      // the same
  std::optional<std::size_t> threads;  // none: as the runtime chooses
  bool low_memory = false;
  bool help = false;
};

/// Throws Error with what is wrong; with --help nothing else is looked at.
GenerateArguments parse_generate_arguments(const std::vector<std::string>& words);

/// What --help prints.
std::string generate_usage(const std::string& program);

}  // namespace dq
