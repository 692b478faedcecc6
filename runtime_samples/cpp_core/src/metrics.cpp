#include "metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dq {
namespace {

constexpr double smallest_mse = 1e-10;  // identical pictures would give infinity, which JSON cannot hold

/// Where 0 and 1 of a picture lie; the constant range of pixels, or that of the reference for an autoencoder's latents.
struct PictureRange {
  bool pixels = true;
  float low = 0, width = 0;

  float operator()(float x) const {
    const float unit = pixels ? (x + 1) / 2 : (x - low) / width;
    return unit < 0 ? 0 : unit > 1 ? 1 : unit;  // NaN is neither, and stays
  }
};

PictureRange range_of(const float* reference, std::size_t channels, std::size_t size) {
  if (channels == 1 || channels == 3) return {};
  const auto [low, high] = std::minmax_element(reference, reference + size);
  return {false, *low, std::max(*high - *low, std::numeric_limits<float>::min())};
}

}  // namespace

double relative_error(const float* x, const float* y, std::size_t size) {
  double difference = 0, wanted = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double want = y[i], off = x[i] - want;
    difference += off * off;
    wanted += want * want;
  }
  return std::sqrt(difference) / std::max(std::sqrt(wanted), std::numeric_limits<double>::min());
}

double psnr(const float* x, const float* reference, std::size_t channels, std::size_t size) {
  const PictureRange picture = range_of(reference, channels, size);
  double sum = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double off = static_cast<double>(picture(x[i])) - static_cast<double>(picture(reference[i]));
    sum += off * off;
  }
  return -10 * std::log10(std::max(sum / static_cast<double>(size), smallest_mse));
}

double median(std::vector<double> values) {
  for (const double value : values) {
    if (std::isnan(value)) return value;
  }
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace dq
