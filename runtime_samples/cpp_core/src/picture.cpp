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

FloatTensor tensor_of(const Picture& picture) {
  constexpr std::size_t channels = 3;
  const std::size_t pixels = picture.height * picture.width;
  const auto side = [](std::size_t size) { return static_cast<std::int64_t>(size); };
  FloatTensor tensor{{1, 3, side(picture.height), side(picture.width)}, std::vector<float>(channels * pixels)};
  for (std::size_t channel = 0; channel < channels; ++channel) {
    const std::size_t own = std::min(channel, picture.channels - 1);
    for (std::size_t i = 0; i < pixels; ++i) {
      tensor.values[channel * pixels + i] = static_cast<float>(picture.pixels[i * picture.channels + own]) / 255.0F * 2.0F - 1.0F;
    }
  }
  return tensor;
}

}  // namespace dq
