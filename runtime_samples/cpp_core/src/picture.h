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

/// (1, 3, H, W) in [-1, 1]; gray becomes three equal channels.
FloatTensor tensor_of(const Picture& picture);

/// A PNG file of this size: gray, RGB or palette, with 8 bits. Throws Error: it is none, is of another size, or not opaque.
Picture read_png(const std::filesystem::path& path, std::size_t height, std::size_t width);

/// A PNG file. Throws Error: it cannot be written.
void write_png(const std::filesystem::path& path, const Picture& picture);

}  // namespace dq
