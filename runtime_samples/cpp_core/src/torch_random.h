#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

namespace dq {

/// torch.Generator("cpu").manual_seed(seed) and torch.randn, bit for bit as torch computes them on x86 with AVX2.
///
/// The logarithm, sine and cosine in float32 are the polynomials of torch's own vectorized kernel, so that no library of the
/// host takes part. torch without AVX2 (ATEN_CPU_CAPABILITY=default, Arm) asks its host's library instead, and differs from
/// this, and from itself elsewhere, in the last bits.
class TorchGenerator {
 public:
  explicit TorchGenerator(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed)) {}

  /// The next torch.randn of that many elements.
  std::vector<float> randn(std::size_t size);

 private:
  float uniform();
  double uniform_double();
  double normal_double();

  std::mt19937 engine_;  // torch takes the low 32 bits of a seed, too
  std::optional<double> next_;
};

}  // namespace dq
