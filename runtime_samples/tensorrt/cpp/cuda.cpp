#include "cuda.h"

#include <algorithm>
#include <utility>

#include "error.h"

namespace dq {

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  throw Error(std::string(what) + " failed with CUDA error " + std::to_string(static_cast<int>(code)) + " (" +
              cudaGetErrorString(code) + "); " + less_memory);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

void DeviceMemory::resize(std::size_t bytes) {
  release();
  check(cudaMalloc(&address_, std::max<std::size_t>(bytes, 1)), "cudaMalloc");
  bytes_ = bytes;
}

void DeviceMemory::release() noexcept {
  if (address_ != nullptr) cudaFree(address_);
  address_ = nullptr;
  bytes_ = 0;
}

Stream::Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }

Stream::~Stream() { cudaStreamDestroy(stream_); }

void Stream::synchronize() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

void Stream::upload(const DeviceMemory& to, const void* source, std::size_t bytes) const {
  check(cudaMemcpyAsync(to.get(), source, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
}

void Stream::download(void* to, const DeviceMemory& source, std::size_t bytes) const {
  check(cudaMemcpyAsync(to, source.get(), bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
}

void RecordedWork::begin(const Stream& stream) {
  // Relaxed: what an engine sets up on the side may allocate.
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
}

void RecordedWork::abandon(const Stream& stream) noexcept {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(stream.get(), &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
}

void RecordedWork::end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
  release();
  const cudaError_t made = cudaGraphInstantiateWithFlags(&executable_, graph, 0);
  cudaGraphDestroy(graph);
  check(made, "cudaGraphInstantiateWithFlags");
}

void RecordedWork::launch(const Stream& stream) const { check(cudaGraphLaunch(executable_, stream.get()), "cudaGraphLaunch"); }

void RecordedWork::release() noexcept {
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  executable_ = nullptr;
}

std::string gpu_name() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties.name;
}

std::string cuda_version() {
  int number = 0;
  check(cudaRuntimeGetVersion(&number), "cudaRuntimeGetVersion");
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace dq
