#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "safetensors.h"

namespace dq {

/// Eight bits for each channel, row by row, the channels of a pixel side by side.
struct Picture {
  std::size_t channels = 0, height = 0, width = 0;  // channels: 1 or 3
  std::vector<std::uint8_t> pixels;
};

/// From (1, C, H, W) in [-1, 1]; what is beyond is clamped.
Picture picture_of(const FloatTensor& decoded);

/// A PNG file. Throws Error: it cannot be written.
void write_png(const std::filesystem::path& path, const Picture& picture);

}  // namespace dq
