#include "replay_network.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "error.h"

namespace dq {

ReplayNetwork::ReplayNetwork(const std::filesystem::path& recording, const Bundle& bundle)
    : bundle_(bundle), elements_(bundle.output.elements()) {
  const TensorFile file = TensorFile::read(recording);
  inputs_ = file.floats("inputs");
  outputs_ = file.floats("outputs");
  const Port* vectors = bundle.input("step_vectors");
  times_ = file.floats(vectors == nullptr ? "timesteps" : "step_vectors");
  for (const Port& port : bundle.inputs) {
    const std::string name = "inputs." + port.name;
    conditioning_.push_back(file.has(name) ? std::optional(file.floats(name)) : std::nullopt);
  }
  const std::size_t executions = outputs_.values.size() / elements_;
  if (times_.values.size() != executions * (vectors == nullptr ? 1 : vectors->elements()) ||
      inputs_.values.size() != executions * elements_ ||
      outputs_.values.size() != executions * elements_) {
    throw Error(recording.string() + " does not belong to the bundle; name its own");
  }
}

void ReplayNetwork::expect_near(const char* what, const float* got, const float* wanted, std::size_t size) const {
  for (std::size_t i = 0; i < size; ++i) {
    const double tolerance = 1e-6 * std::max(1.0, std::fabs(static_cast<double>(wanted[i])));
    const bool same = std::memcmp(got + i, wanted + i, sizeof(float)) == 0 || (std::isnan(got[i]) && std::isnan(wanted[i]));
    if (same || std::fabs(static_cast<double>(got[i]) - static_cast<double>(wanted[i])) <= tolerance) continue;
    throw Error(std::string(what) + " of execution " + std::to_string(next_) + " is " + std::to_string(got[i]) +
                ", the recording has " + std::to_string(wanted[i]) + "; correct the sampler");
  }
}

void ReplayNetwork::execute(std::size_t, const std::vector<Input>& inputs, std::vector<float>& output) {
  if (next_ == executions()) {
    throw Error("the recording has " + std::to_string(next_) + " executions, one more was asked for; correct the sampler");
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::vector<float> numbers(bundle_.inputs[i].dtype == "float32" ? inputs[i].bytes / sizeof(float) : 0);
    if (!numbers.empty()) std::memcpy(numbers.data(), inputs[i].data, inputs[i].bytes);
    if (bundle_.inputs[i].name == "sample") {
      expect_near("sample", numbers.data(), inputs_.values.data() + next_ * elements_, elements_);
    } else if (const std::string& name = bundle_.inputs[i].name; name == "timestep" || name == "step_vectors") {
      expect_near(name.c_str(), numbers.data(), times_.values.data() + next_ * numbers.size(), numbers.size());
    } else if (conditioning_[i]) {
      if (conditioning_[i]->values.size() != executions() * numbers.size()) throw Error("inputs." + name + " does not belong to the bundle");
      expect_near(name.c_str(), numbers.data(), conditioning_[i]->values.data() + next_ * numbers.size(), numbers.size());
    }
  }
  std::memcpy(output.data(), outputs_.values.data() + next_ * elements_, elements_ * sizeof(float));
  ++next_;
}

Runtime ReplayNetwork::runtime() const { return {"replay", "1", "none", {}, 0.0, true}; }

void ReplayNetwork::expect_end() const {
  if (next_ == executions()) return;
  throw Error("the recording has " + std::to_string(executions()) + " executions, " + std::to_string(next_) +
              " were asked for; correct the sampler");
}

}  // namespace dq
