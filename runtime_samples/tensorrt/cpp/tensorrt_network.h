#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "cuda.h"
#include "engine.h"
#include "network.h"
#include "tensorrt_device.h"

namespace dq {

struct TensorRTOptions {
  bool reload = false;  // keep one engine, load the next when its step group comes; else all stay
  bool graphs = true;   // record each engine's work as a CUDA graph
};

/// Engines, one scratch memory as large as the largest needs, one set of inputs and output.
class TensorRTNetwork : public Network {
 public:
  /// Bundle and device outlive it. Throws Error: an engine is missing, does not load or has other inputs and outputs, or the device has
  /// too little memory.
  TensorRTNetwork(const Bundle& bundle, const TensorRTDevice& device, const TensorRTOptions& options);
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
  const TensorRTDevice& device_;
  const TensorRTOptions options_;
  double load_ms_ = 0;
  // They go from the last to the first: engines before what they use.
  Buffers buffers_;
  DeviceMemory scratch_;
  std::vector<std::unique_ptr<Engine>> engines_;  // by method, null if not in memory
};

}  // namespace dq
