#pragma once

#include <NvInfer.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "cuda.h"
#include "messages.h"

namespace dq {

using Buffers = std::map<std::string, DeviceMemory>;  // of inputs and outputs, by name

std::size_t bytes_of(const Port& port);

/// One TensorRT engine with its context and, after its first execution, its CUDA graph.
class Engine {
 public:
  /// Reads a plan. Throws Error: it does not load here.
  Engine(nvinfer1::IRuntime& runtime, const Messages& messages, const std::filesystem::path& plan);

  /// Inputs and outputs; a dtype other than float32 and int64 is named by TensorRT's number.
  const std::vector<Port>& ports() const { return ports_; }
  /// Throws Error unless `port`, of this engine, has the dtype and shape of `wanted`, which is null if there is none; `by` says who
  /// wants it.
  void expect(const Port& port, const Port* wanted, const char* by) const;

  /// Device memory that an execution needs besides weights, inputs and output.
  std::size_t scratch_bytes() const;

  /// Makes it executable, for good: scratch and buffers must stay where they are. Throws Error.
  void bind(const DeviceMemory& scratch, const Buffers& buffers);

  /// Queues one execution. With `graphs` the first one is plain, as it sets things up that must not be recorded, and the
  /// second one records what it and all later ones launch. Throws Error.
  void run(const Stream& stream, bool graphs);
  /// Records now, after the first execution, what the next one would. Throws Error.
  void record(const Stream& stream);

 private:
  void enqueue(const Stream& stream);

  bool executed_ = false;
  const Messages& messages_;
  std::string name_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::vector<Port> ports_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  RecordedWork recorded_;  // goes first, it refers to the context
};

}  // namespace dq
