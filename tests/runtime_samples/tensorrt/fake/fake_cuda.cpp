// A CUDA runtime in host memory, as lazy as the real one may be: what is queued runs when somebody waits for it.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <vector>

#include "fake.h"

struct FakeStream {
  std::vector<fake::Work> queue;
};
struct FakeGraph {
  std::vector<fake::Work> work;
};
struct FakeExecutable {
  std::vector<fake::Work> work;
};

namespace {

std::map<const char*, std::size_t> memory;
std::set<FakeStream*> streams;
std::set<FakeExecutable*> executables;
FakeGraph* recorded = nullptr;

void run_queued(FakeStream& stream) {
  std::vector<fake::Work> queue;
  queue.swap(stream.queue);
  for (const fake::Work& work : queue) work();
}

}  // namespace

namespace fake {

void require(bool good, const std::string& text) {
  if (good) return;
  std::fprintf(stderr, "fake: %s\n", text.c_str());
  std::_Exit(70);
}

void require_memory(const void* address, std::size_t bytes) {
  const char* first = static_cast<const char*>(address);
  auto block = memory.upper_bound(first);
  require(block != memory.begin(), "memory was freed or never allocated");
  --block;
  require(first + bytes <= block->first + block->second, "memory was freed or never allocated");
}

void submit(cudaStream_t stream, Work work) {
  require(streams.count(stream) == 1, "no such stream");
  (recorded != nullptr ? recorded->work : stream->queue).push_back(std::move(work));
}

bool is_capturing() { return recorded != nullptr; }

void log(const std::string& event) {
  if (const char* path = std::getenv("FAKE_LOG")) std::ofstream(path, std::ios::app) << event << "\n";
}

long setting(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atol(text) : otherwise;
}

}  // namespace fake

using fake::require;

extern "C" {

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  require(recorded == nullptr, "allocation during capture");
  std::size_t all = bytes;
  for (const auto& block : memory) all += block.second;
  if (all > static_cast<std::size_t>(fake::setting("FAKE_MEMORY", 1L << 30))) return cudaErrorMemoryAllocation;
  *address = std::malloc(bytes);
  std::memset(*address, 0xFF, bytes);  // NaN until it is written
  memory[static_cast<char*>(*address)] = bytes;
  fake::log("allocate " + std::to_string(bytes));
  return cudaSuccess;
}

cudaError_t cudaFree(void* address) {
  require(recorded == nullptr, "free during capture");
  for (FakeStream* stream : streams) run_queued(*stream);
  const auto block = memory.find(static_cast<char*>(address));
  require(block != memory.end(), "freed twice or never allocated");
  fake::log("free " + std::to_string(block->second));
  memory.erase(block);
  std::free(address);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* source, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  require(recorded == nullptr, "this program records executions only");
  fake::submit(stream, [=] {
    fake::require_memory(kind == cudaMemcpyHostToDevice ? to : source, bytes);
    std::memcpy(to, source, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  require(flags == cudaStreamNonBlocking, "the default stream waits for everything");
  *stream = new FakeStream;
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  require(streams.erase(stream) == 1, "no such stream");
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  require(recorded == nullptr, "synchronization during capture");
  require(streams.count(stream) == 1, "no such stream");
  run_queued(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  require(recorded == nullptr && mode == cudaStreamCaptureModeRelaxed, "capture within a capture");
  require(stream->queue.empty(), "capture while work is queued");
  recorded = new FakeGraph;
  fake::log("capture");
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  require(recorded != nullptr, "no capture to end");
  *graph = recorded;
  recorded = nullptr;
  if (fake::setting("FAKE_NO_CAPTURE", 0) == 0) return cudaSuccess;
  delete *graph;
  *graph = nullptr;
  return cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  require(flags == 0, "no flags are needed");
  *executable = new FakeExecutable{graph->work};
  executables.insert(*executable);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  require(executables.count(executable) == 1, "launched after it was destroyed");
  require(recorded == nullptr, "launch during capture");
  fake::log("launch");
  for (const fake::Work& work : executable->work) fake::submit(stream, work);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  require(executables.erase(executable) == 1, "destroyed twice");
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  require(device == 0, "one device");
  std::strcpy(properties->name, "Orin");
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 12060;
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaErrorMemoryAllocation ? "out of memory" : "operation failed due to a previous error during capture";
}

}  // extern "C"
