#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dq {

struct Arguments {
  std::filesystem::path bundle, report;
  std::optional<std::size_t> seeds;  // none: all
  std::optional<std::size_t> steps;  // none: the calibrated ones
  std::optional<double> guidance;    // the same
  bool teacher_forced = true;
  bool help = false;
};

/// Throws Error with what is wrong; with --help nothing else is looked at.
Arguments parse_arguments(const std::vector<std::string>& words);

/// What --help prints.
std::string usage(const std::string& program);

}  // namespace dq
