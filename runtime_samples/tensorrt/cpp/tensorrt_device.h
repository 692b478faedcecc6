#pragma once

#include <NvInfer.h>

#include <memory>
#include <string>

#include "bundle.h"
#include "cuda.h"
#include "engine.h"
#include "messages.h"

namespace dq {

/// TensorRT with a stream of GPU 0: what all engines of a process share.
class TensorRTDevice {
 public:
  /// Throws Error: TensorRT does not start.
  TensorRTDevice();

  const Stream& stream() const { return stream_; }
  /// engines/NAME.plan of a bundle. Throws Error: it is missing, was made of other files than the bundle's, or does not load.
  std::unique_ptr<Engine> read(const Bundle& bundle, const std::string& name) const;

 private:
  // They go from the last to the first.
  Messages messages_;
  Stream stream_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
};

}  // namespace dq
