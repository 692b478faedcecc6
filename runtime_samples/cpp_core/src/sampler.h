#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "bundle.h"

namespace dq {

/// (input_scale[k] * x[k], k) -> f[k], after guidance and correction.
using Denoise = std::function<std::vector<float>(const std::vector<float>& x, std::size_t k)>;
/// Standard normal noise of step k; only asked where c[k] is not 0.
using StepNoise = std::function<const float*(std::size_t k)>;

/// The table's recurrence from x[0] = start: x[0], ..., x[N], each as long as start. All in float32.
std::vector<std::vector<float>> rollout(const Table& table, std::vector<float> start, const StepNoise& noise,
                                        const Denoise& denoise);

/// factor * x, what the network is given where there is no correction.
std::vector<float> scaled(float factor, const float* x, std::size_t size);

}  // namespace dq
