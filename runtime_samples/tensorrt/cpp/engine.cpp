#include "engine.h"

#include "error.h"
#include "files.h"

namespace dq {
namespace {

const std::string build_again = "; build it on this device with: python3 build_engines.py --force, in the bundle's folder";

std::string dtype_of(nvinfer1::DataType dtype) {
  if (dtype == nvinfer1::DataType::kFLOAT) return "float32";
  if (dtype == nvinfer1::DataType::kINT64) return "int64";
  return "dtype number " + std::to_string(static_cast<int>(dtype));
}

std::string describe(const Port& port) { return port.dtype + " of shape " + to_string(port.shape); }

}  // namespace

std::size_t bytes_of(const Port& port) { return port.elements() * (port.dtype == "int64" ? sizeof(std::int64_t) : sizeof(float)); }

Engine::Engine(nvinfer1::IRuntime& runtime, const Messages& messages, const std::filesystem::path& plan)
    : messages_(messages), name_(plan.filename().string()) {
  const Bytes bytes = read_file(plan);
  engine_.reset(runtime.deserializeCudaEngine(bytes.data(), bytes.size()));
  if (!engine_) {
    throw Error(name_ + " does not load: it is damaged or was built for another TensorRT or GPU" + build_again + messages.last());
  }
  for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    ports_.push_back({name, dtype_of(engine_->getTensorDataType(name)), {shape.d, shape.d + (shape.nbDims < 0 ? 0 : shape.nbDims)}});
  }
}

void Engine::expect(const Port& port, const Port* wanted, const char* by) const {
  const std::string got = describe(port), want = wanted == nullptr ? "none of that name" : describe(*wanted);
  if (got != want) throw Error(name_ + " has '" + port.name + "', " + got + ", " + by + " has " + want + build_again);
}

std::size_t Engine::scratch_bytes() const { return static_cast<std::size_t>(engine_->getDeviceMemorySizeV2()); }

void Engine::bind(const DeviceMemory& scratch, const Buffers& buffers) {
  context_.reset(engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
  if (!context_) {
    throw Error("TensorRT makes no context for " + name_ + "; " + less_memory + messages_.last());
  }
  context_->setDeviceMemoryV2(scratch.get(), static_cast<std::int64_t>(scratch.bytes()));
  for (const Port& port : ports_) {
    if (!context_->setTensorAddress(port.name.c_str(), buffers.at(port.name).get())) {
      throw Error("TensorRT refuses the address of '" + port.name + "' of " + name_ + build_again + messages_.last());
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
