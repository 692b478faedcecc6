#include "tensorrt_programs.h"

#include <algorithm>
#include <utility>

#include "error.h"

namespace dq {
namespace {

class TensorRTPart : public Part {
 public:
  TensorRTPart(std::unique_ptr<Engine> engine, const TensorRTDevice& device, std::string name)
      : stream_(device.stream()), name_(std::move(name)), engine_(std::move(engine)) {}

  ~TensorRTPart() override { cudaStreamSynchronize(stream_.get()); }  // nothing goes while it is in use

  std::vector<FloatTensor> execute(const std::vector<PartInput>& inputs, const std::vector<std::string>& outputs) override {
    for (const Port& port : engine_->ports()) check(port, inputs, outputs);
    for (const PartInput& input : inputs) find(input.port.name);
    std::vector<FloatTensor> answers;
    for (const std::string& output : outputs) answers.push_back({find(output).shape, std::vector<float>(find(output).elements())});
    prepare();
    try {
      for (const PartInput& input : inputs) stream_.upload(buffers_.at(input.port.name), input.data, bytes_of(input.port));
      engine_->run(stream_, false);  // recording pays where the same is executed often
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        stream_.download(answers[i].values.data(), buffers_.at(outputs[i]), answers[i].values.size() * sizeof(float));
      }
      stream_.synchronize();
    } catch (...) {
      cudaStreamSynchronize(stream_.get());  // inputs and answers go now, and copies of them may still be queued
      throw;
    }
    return answers;
  }

 private:
  /// Memory is taken when it executes: all parts may be open at once.
  void prepare() {
    if (!buffers_.empty()) return;
    scratch_.resize(engine_->scratch_bytes());
    for (const Port& port : engine_->ports()) buffers_.emplace(port.name, bytes_of(port));
    engine_->bind(scratch_, buffers_);
  }

  void check(const Port& port, const std::vector<PartInput>& inputs, const std::vector<std::string>& outputs) const {
    const auto input = std::find_if(inputs.begin(), inputs.end(), [&](const PartInput& each) { return each.port.name == port.name; });
    const Port answer{port.name, "float32", port.shape};
    const bool is_output = std::find(outputs.begin(), outputs.end(), port.name) != outputs.end();
    engine_->expect(port, input != inputs.end() ? &input->port : is_output ? &answer : nullptr, "pipeline.json");
  }

  const Port& find(const std::string& port) const {
    for (const Port& own : engine_->ports()) {
      if (own.name == port) return own;
    }
    throw Error(name_ + ".plan has no '" + port + "', which pipeline.json names; build it on this device with: python3 build_engines.py --force, in the bundle's folder");
  }

  const Stream& stream_;
  std::string name_;
  // They go from the last to the first: the engine before what it uses.
  Buffers buffers_;
  DeviceMemory scratch_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace

std::unique_ptr<Part> TensorRTPrograms::open(const std::filesystem::path&, const std::string& name) {
  return std::make_unique<TensorRTPart>(device_.read(bundle_, name), device_, name);
}

std::unique_ptr<Network> TensorRTPrograms::open_network(const Bundle& bundle) {
  return std::make_unique<TensorRTNetwork>(bundle, device_, options_);
}

}  // namespace dq
