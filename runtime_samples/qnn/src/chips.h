#pragma once

#include <string>

namespace dq {

/// A chip as Qualcomm's libraries number it. Without the numbers they compile for v68, whose convolutions truncate.
struct Chip {
  const char *name, *soc_model, *htp_arch;
};

/// As the exporter has them; a bundle holds a folder of contexts under such a name.
inline constexpr Chip chips[] = {
    {"SM8550", "43", "73"},  // Snapdragon 8 Gen 2
    {"SM8650", "57", "75"},  // 8 Gen 3
    {"SM8750", "69", "79"},  // 8 Elite
    {"SM8850", "87", "81"},  // 8 Elite Gen 5
};

/// Null: there is no such chip.
inline const Chip* find_chip(const std::string& name) {
  for (const Chip& chip : chips) {
    if (name == chip.name) return &chip;
  }
  return nullptr;
}

inline std::string chip_names() {
  std::string names;
  for (const Chip& chip : chips) names += (names.empty() ? "" : ", ") + std::string(chip.name);
  return names;
}

}  // namespace dq
