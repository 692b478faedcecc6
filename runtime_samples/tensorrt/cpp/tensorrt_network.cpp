#include "tensorrt_network.h"

#include <algorithm>
#include <chrono>

#include "error.h"

namespace dq {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// TensorRT 10's number of a version: 100300 is 10.3.0.
std::string tensorrt_version() {
  const int number = getInferLibVersion();
  return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." + std::to_string(number % 100);
}

}  // namespace

TensorRTNetwork::TensorRTNetwork(const Bundle& bundle, const TensorRTDevice& device, const TensorRTOptions& options)
    : bundle_(bundle), device_(device), options_(options), engines_(bundle.methods.size()) {
  const Clock::time_point start = Clock::now();
  buffers_.emplace(bundle.output.name, bytes_of(bundle.output));
  for (const Port& port : bundle.inputs) buffers_.emplace(port.name, bytes_of(port));
  if (!options.reload) load_all();
  load_ms_ = milliseconds_since(start);
}

TensorRTNetwork::~TensorRTNetwork() {
  cudaStreamSynchronize(device_.stream().get());  // nothing goes while it is in use
}

std::unique_ptr<Engine> TensorRTNetwork::read(std::size_t method) {
  std::unique_ptr<Engine> engine = device_.read(bundle_, bundle_.methods[method]);
  for (const Port& port : engine->ports()) {
    engine->expect(port, port.name == bundle_.output.name ? &bundle_.output : bundle_.input(port.name), "the bundle");
  }
  return engine;
}

void TensorRTNetwork::load_all() {
  std::size_t scratch = 0;
  for (std::size_t method = 0; method < engines_.size(); ++method) {
    engines_[method] = read(method);
    scratch = std::max(scratch, engines_[method]->scratch_bytes());
  }
  scratch_.resize(scratch);
  for (const auto& engine : engines_) engine->bind(scratch_, buffers_);
}

void TensorRTNetwork::load(std::size_t method) {
  if (engines_[method]) return;
  for (auto& engine : engines_) engine.reset();  // its memory first
  std::unique_ptr<Engine> engine = read(method);
  if (scratch_.get() == nullptr || engine->scratch_bytes() > scratch_.bytes()) scratch_.resize(engine->scratch_bytes());
  engine->bind(scratch_, buffers_);
  engines_[method] = std::move(engine);
}

void TensorRTNetwork::warm_up(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  const Clock::time_point start = Clock::now();
  if (!engines_[method]) {
    load(method);
    load_ms_ += milliseconds_since(start);
  }
  execute(method, inputs, output);
  if (options_.graphs && !options_.reload) engines_[method]->record(device_.stream());
}

void TensorRTNetwork::execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  load(method);
  try {
    run(method, inputs, output);
  } catch (...) {
    cudaStreamSynchronize(device_.stream().get());  // inputs and output may go now, and copies of them may still be queued
    throw;
  }
}

void TensorRTNetwork::run(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    device_.stream().upload(buffers_.at(bundle_.inputs[i].name), inputs[i].data, inputs[i].bytes);
  }
  engines_[method]->run(device_.stream(), options_.graphs);
  device_.stream().download(output.data(), buffers_.at(bundle_.output.name), output.size() * sizeof(float));
  device_.stream().synchronize();
}

Runtime TensorRTNetwork::runtime() const {
  Runtime runtime;
  runtime.name = "TensorRT (C++)";
  runtime.version = tensorrt_version();
  runtime.compute_unit = gpu_name() + " GPU, " + (options_.reload ? "one engine at a time" : "all engines resident") +
                         (options_.graphs ? ", CUDA graphs" : ", no CUDA graphs");
  runtime.versions = {{"cuda", cuda_version()}};
  runtime.load_ms = load_ms_;
  return runtime;
}

}  // namespace dq
