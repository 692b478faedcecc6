#pragma once

#include <filesystem>
#include <vector>

namespace dq::android {

/// What a person can choose of a bundle.
struct Choices {
  std::vector<int> steps;         // pair by pair with `guidances`; the first is the calibrated pair
  std::vector<double> guidances;
  bool takes_prompt = false, takes_label = false;
};

/// Reads the two JSON files of a bundle and no more: the hashes of all files are checked when it draws. Throws Error.
Choices choices_of(const std::filesystem::path& folder);

}  // namespace dq::android
