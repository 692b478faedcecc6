#pragma once

#include <cstddef>
#include <vector>

namespace dq {

/// ||x - y|| / ||y||, sums of squares in float64.
double relative_error(const float* x, const float* y, std::size_t size);

/// PSNR in dB of a sample (C, H, W) against a reference, as pictures in [0, 1]; at most 100, NaN stays NaN.
double psnr(const float* x, const float* reference, std::size_t channels, std::size_t size);

/// The middle value, the mean of the middle two if their number is even, NaN if any is; at least one value.
double median(std::vector<double> values);

}  // namespace dq
