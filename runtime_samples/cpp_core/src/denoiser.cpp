#include "denoiser.h"

#include <utility>

#include "sampler.h"

namespace dq {

Denoiser::Denoiser(const Bundle& bundle, const Reference& reference, Network& network)
    : bundle_(bundle), reference_(reference), network_(network), inputs_(bundle.inputs.size()) {}

const std::vector<Input>& Denoiser::gather(const float* x, std::size_t k, std::size_t seed,
                                           const std::vector<Conditioning>& given) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const Port& port = bundle_.inputs[i];
    const std::size_t elements = port.elements();
    if (port.name == "sample") {
      inputs_[i] = {x, elements * sizeof(float)};
    } else if (port.name == "timestep") {
      inputs_[i] = {&bundle_.table.timesteps[k], sizeof(float)};
    } else if (port.name == "step_vectors") {
      inputs_[i] = {bundle_.step_vectors->values.data() + k * elements, elements * sizeof(float)};
    } else if (port.name == "ranges") {
      inputs_[i] = {bundle_.ranges->values.data() + bundle_.group_of_step[k] * elements, elements * sizeof(float)};
    } else if (port.dtype == "float32") {
      inputs_[i] = {given[i].floats.data() + seed * elements, elements * sizeof(float)};
    } else {
      inputs_[i] = {given[i].integers.data() + seed * elements, elements * sizeof(std::int64_t)};
    }
  }
  return inputs_;
}

std::vector<float> Denoiser::operator()(const std::vector<float>& scaled_x, std::size_t k, std::size_t seed) {
  const std::size_t method = bundle_.method_of_step(k);
  const std::vector<float> x = corrected(scaled_x, k);
  std::vector<float> output(x.size());
  network_.execute(method, gather(x.data(), k, seed, reference_.cond), output);
  if (bundle_.is_guided()) {
    unconditional_.resize(x.size());
    network_.execute(method, gather(x.data(), k, seed, reference_.uncond), unconditional_);
    for (std::size_t i = 0; i < output.size(); ++i) {
      output[i] = unconditional_[i] + bundle_.guidance * (output[i] - unconditional_[i]);
    }
  }
  if (bundle_.table.correction) return bundle_.table.correction->after(std::move(output), k);
  return output;
}

std::vector<float> Denoiser::corrected(std::vector<float> scaled_x, std::size_t k) const {
  if (bundle_.table.correction) return bundle_.table.correction->before(std::move(scaled_x), k);
  return scaled_x;
}

void Denoiser::warm_up() {
  std::vector<float> output(reference_.elements);
  std::vector<bool> warm(bundle_.methods.size(), false);
  for (std::size_t k = 0; k < bundle_.table.calls(); ++k) {
    const std::size_t method = bundle_.method_of_step(k);
    if (warm[method]) continue;
    const float* start = reference_.start.values.data();
    const std::vector<float> x = corrected(scaled(bundle_.table.input_scale[k], start, reference_.elements), k);
    network_.warm_up(method, gather(x.data(), k, 0, reference_.cond), output);
    warm[method] = true;
  }
}

}  // namespace dq
