// misuse PLAN MISTAKE: uses the fakes wrongly, on purpose; each mistake must end the process with exit code 70.

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "NvInfer.h"

namespace {

struct Silent : nvinfer1::ILogger {
  void log(Severity, const char*) noexcept override {}
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  std::ifstream stream(argv[1], std::ios::binary);
  const std::string plan((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  const std::string mistake = argv[2];
  Silent logger;
  const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
  const std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
  std::unique_ptr<nvinfer1::IExecutionContext> context(
      engine->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
  cudaStream_t queue = nullptr;
  cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking);
  std::vector<void*> memory;
  const auto allocate = [&] {
    memory.push_back(nullptr);
    cudaMalloc(&memory.back(), 1 << 16);
    return memory.back();
  };
  context->setDeviceMemoryV2(allocate(), 1 << 16);
  for (int i = 0; i < engine->getNbIOTensors(); ++i) context->setTensorAddress(engine->getIOTensorName(i), allocate());

  if (mistake != "capture first") {
    context->enqueueV3(queue);
    if (mistake == "context gone") context.reset();
    if (mistake == "no wait") cudaStreamBeginCapture(queue, cudaStreamCaptureModeRelaxed);
    cudaStreamSynchronize(queue);
  }
  if (mistake == "freed input" || mistake == "freed scratch") {
    cudaFree(memory[mistake == "freed input" ? 1 : 0]);
    context->enqueueV3(queue);
    cudaStreamSynchronize(queue);
  }
  cudaStreamBeginCapture(queue, cudaStreamCaptureModeRelaxed);
  context->enqueueV3(queue);
  if (mistake == "wait in capture") cudaStreamSynchronize(queue);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t recorded = nullptr;
  cudaStreamEndCapture(queue, &graph);
  cudaGraphInstantiateWithFlags(&recorded, graph, 0);
  cudaGraphDestroy(graph);
  if (mistake == "graph gone") cudaGraphExecDestroy(recorded);
  cudaGraphLaunch(recorded, queue);
  cudaStreamSynchronize(queue);
  cudaGraphExecDestroy(recorded);
  context.reset();
  for (void* address : memory) cudaFree(address);
  cudaStreamDestroy(queue);
  return 0;
}
