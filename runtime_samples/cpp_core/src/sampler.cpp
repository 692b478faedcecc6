#include "sampler.h"

#include <algorithm>
#include <utility>

namespace dq {
namespace {

using History = std::vector<std::vector<float>>;  // oldest first, its last is step k

void add(std::vector<float>& total, float coefficient, const float* x) {
  if (coefficient == 0) return;  // not only faster: 0 times infinity would spread
  for (std::size_t i = 0; i < total.size(); ++i) total[i] += coefficient * x[i];
}

void add_terms(std::vector<float>& total, const std::vector<float>& coefficients, const History& history) {
  const std::size_t reach = std::min(coefficients.size(), history.size());  // beyond it all are 0, the table was checked
  for (std::size_t i = 0; i < reach; ++i) add(total, coefficients[i], history[history.size() - 1 - i].data());
}

}  // namespace

std::vector<float> scaled(float factor, const float* x, std::size_t size) {
  std::vector<float> result(x, x + size);
  for (float& value : result) value *= factor;
  return result;
}

std::vector<std::vector<float>> rollout(const Table& table, std::vector<float> start, const StepNoise& noise,
                                        const Denoise& denoise) {
  History latents, outputs;
  latents.push_back(std::move(start));
  for (std::size_t k = 0; k < table.calls(); ++k) {
    const std::vector<float>& x = latents.back();
    outputs.push_back(denoise(scaled(table.input_scale[k], x.data(), x.size()), k));
    std::vector<float> next(x.size(), 0.0F);
    add_terms(next, table.a[k], latents);
    add_terms(next, table.b[k], outputs);
    if (table.c[k] != 0) add(next, table.c[k], noise(k));
    latents.push_back(std::move(next));
  }
  return latents;
}

}  // namespace dq
