#include "engine.h"

#include "error.h"
#include "files.h"

namespace dq {
namespace {

const std::string build_again = "; build it on this device with: python3 build_engines.py --force, in the bundle's folder";

/// dtype and shape in the bundle's words.
std::string describe(nvinfer1::DataType dtype, const Shape& shape) {
  std::string name = "dtype number " + std::to_string(static_cast<int>(dtype));
  if (dtype == nvinfer1::DataType::kFLOAT) name = "float32";
  if (dtype == nvinfer1::DataType::kINT64) name = "int64";
  return name + " of shape " + to_string(shape);
}

Bytes read_plan(const std::filesystem::path& plan) {
  if (!std::filesystem::exists(plan)) {
    throw Error(plan.string() + " is missing; build it on this device with: python3 build_engines.py, in the bundle's folder");
  }
  return read_file(plan);
}

}  // namespace

Engine::Engine(nvinfer1::IRuntime& runtime, const Messages& messages, const std::filesystem::path& plan, const Bundle& bundle)
    : messages_(messages), name_(plan.filename().string()) {
  const Bytes bytes = read_plan(plan);
  engine_.reset(runtime.deserializeCudaEngine(bytes.data(), bytes.size()));
  if (!engine_) {
    throw Error(name_ + " does not load: it is damaged or was built for another TensorRT or GPU" + build_again + messages.last());
  }
  for (int i = 0; i < engine_->getNbIOTensors(); ++i) check_tensor(engine_->getIOTensorName(i), bundle);
}

void Engine::check_tensor(const char* name, const Bundle& bundle) const {
  const nvinfer1::Dims dimensions = engine_->getTensorShape(name);
  const Shape shape(dimensions.d, dimensions.d + (dimensions.nbDims < 0 ? 0 : dimensions.nbDims));
  const std::string got = describe(engine_->getTensorDataType(name), shape);
  std::string want = "none of that name";
  if (bundle.output.name == name) want = bundle.output.dtype + " of shape " + to_string(bundle.output.shape);
  for (const Port& port : bundle.inputs) {
    if (port.name == name) want = port.dtype + " of shape " + to_string(port.shape);
  }
  if (got != want) throw Error(name_ + " has '" + name + "', " + got + ", the bundle has " + want + build_again);
}

std::size_t Engine::scratch_bytes() const { return static_cast<std::size_t>(engine_->getDeviceMemorySizeV2()); }

void Engine::bind(const DeviceMemory& scratch, const Buffers& buffers) {
  context_.reset(engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
  if (!context_) {
    throw Error("TensorRT makes no context for " + name_ + "; free GPU memory, or take --reload" + messages_.last());
  }
  context_->setDeviceMemoryV2(scratch.get(), static_cast<std::int64_t>(scratch.bytes()));
  for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    if (!context_->setTensorAddress(name, buffers.at(name).get())) {
      throw Error("TensorRT refuses the address of '" + std::string(name) + "' of " + name_ + build_again + messages_.last());
    }
  }
}

void Engine::run(const Stream& stream, bool graphs) {
  if (graphs && executed_ && !recorded_) record(stream);
  if (recorded_) {
    recorded_.launch(stream);
  } else {
    enqueue(stream);
  }
  executed_ = true;
}

void Engine::record(const Stream& stream) {
  stream.synchronize();
  try {
    recorded_.record(stream, [&] { enqueue(stream); });
  } catch (const Error& error) {
    throw Error(name_ + " cannot be recorded as a CUDA graph (" + error.what() + "); take --no-cuda-graphs");
  }
}

void Engine::enqueue(const Stream& stream) {
  if (!context_->enqueueV3(stream.get())) {
    throw Error("TensorRT could not execute " + name_ + build_again + messages_.last());
  }
}

}  // namespace dq
