#include "torch_random.h"

#include <cmath>

#include "torch_math.h"

namespace dq {
namespace {

constexpr std::size_t block = 16;
constexpr double pi = 3.14159265358979323846;

/// Box and Muller: 8 radii and 8 angles become 16 normal numbers.
void to_normal(float* numbers) {
  for (std::size_t i = 0; i < block / 2; ++i) {
    const float radius = std::sqrt(-2.0F * torch_log(1.0F - numbers[i]));
    const SinCos angle = torch_sincos(static_cast<float>(2 * pi) * numbers[i + block / 2]);
    numbers[i] = radius * angle.cos + 0.0F;  // torch adds the mean: no zero is negative
    numbers[i + block / 2] = radius * angle.sin + 0.0F;
  }
}

}  // namespace

float TorchGenerator::uniform() {
  constexpr std::uint32_t digits = 24;
  return static_cast<float>(engine_() & ((1U << digits) - 1)) * (1.0F / (1U << digits));
}

double TorchGenerator::uniform_double() {
  constexpr std::uint64_t digits = 53;
  const std::uint64_t high = engine_(), bits = (high << 32) | engine_();
  return static_cast<double>(bits & ((1ULL << digits) - 1)) * (1.0 / static_cast<double>(1ULL << digits));
}

double TorchGenerator::normal_double() {
  if (next_) {
    const double kept = *next_;
    next_.reset();
    return kept;
  }
  const double u1 = uniform_double(), u2 = uniform_double();
  const double radius = std::sqrt(-2.0 * std::log1p(-u2)), theta = 2.0 * pi * u1;
  next_ = radius * std::sin(theta);
  return radius * std::cos(theta);
}

std::vector<float> TorchGenerator::randn(std::size_t size) {
  std::vector<float> numbers(size);
  if (size < block) {
    for (float& number : numbers) number = static_cast<float>(normal_double());
    return numbers;
  }
  for (float& number : numbers) number = uniform();
  for (std::size_t i = 0; i + block <= size; i += block) to_normal(numbers.data() + i);
  if (size % block != 0) {  // the last 16 are drawn anew, over some that are done
    float* last = numbers.data() + size - block;
    for (std::size_t i = 0; i < block; ++i) last[i] = uniform();
    to_normal(last);
  }
  return numbers;
}

}  // namespace dq
