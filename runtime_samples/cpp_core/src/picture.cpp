#include "picture.h"

#include <algorithm>
#include <cmath>

namespace dq {

Picture picture_of(const FloatTensor& decoded) {
  const auto axis = [&](std::size_t i) { return static_cast<std::size_t>(decoded.shape[i]); };
  Picture picture{axis(1), axis(2), axis(3), std::vector<std::uint8_t>(decoded.values.size())};
  const std::size_t pixels = picture.height * picture.width;
  for (std::size_t channel = 0; channel < picture.channels; ++channel) {
    for (std::size_t i = 0; i < pixels; ++i) {
      const float x = std::clamp(decoded.values[channel * pixels + i], -1.0F, 1.0F);
      // To the nearest, of two as near to the even one: as numpy rounds.
      picture.pixels[i * picture.channels + channel] = static_cast<std::uint8_t>(std::nearbyint((x * 0.5F + 0.5F) * 255.0F));
    }
  }
  return picture;
}

}  // namespace dq
