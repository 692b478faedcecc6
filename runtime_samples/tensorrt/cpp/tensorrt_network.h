#pragma once

#include <NvInfer.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "cuda.h"
#include "engine.h"
#include "messages.h"
#include "network.h"

namespace dq {

struct TensorRTOptions {
  bool reload = false;  // keep one engine, load the next when its step group comes; else all stay
  bool graphs = true;   // record each engine's work as a CUDA graph
};

/// Engines, one scratch memory as large as the largest needs, one set of inputs and output, one stream.
class TensorRTNetwork : public Network {
 public:
  /// Throws Error: an engine is missing or does not load, or the device has too little memory.
  TensorRTNetwork(const Bundle& bundle, const TensorRTOptions& options);
  ~TensorRTNetwork() override;
  TensorRTNetwork(const TensorRTNetwork&) = delete;
  TensorRTNetwork& operator=(const TensorRTNetwork&) = delete;

  void execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) override;
  /// The first execution, and where the engine stays the recording of its CUDA graph. What it loads counts as loading.
  void warm_up(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) override;
  Runtime runtime() const override;

 private:
  std::unique_ptr<Engine> read(std::size_t method);
  void load(std::size_t method);
  void load_all();
  void run(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output);

  const Bundle& bundle_;
  const TensorRTOptions options_;
  double load_ms_ = 0;
  // They go from the last to the first: engines before what they use.
  Messages messages_;
  Stream stream_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  Buffers buffers_;
  DeviceMemory scratch_;
  std::vector<std::unique_ptr<Engine>> engines_;  // by method, null if not in memory
};

}  // namespace dq
