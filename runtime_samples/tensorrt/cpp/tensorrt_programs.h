#pragma once

#include "programs.h"
#include "tensorrt_device.h"
#include "tensorrt_network.h"

namespace dq {

/// Text encoders, network and decoder of a bundle as engines, which bear their names.
class TensorRTPrograms : public Programs {
 public:
  /// The bundle outlives it. `options`: of the network. Throws Error: TensorRT does not start.
  TensorRTPrograms(const Bundle& bundle, const TensorRTOptions& options) : bundle_(bundle), options_(options) {}

  std::unique_ptr<Part> open(const std::filesystem::path& program, const std::string& name) override;
  std::unique_ptr<Network> open_network(const Bundle& bundle) override;

 private:
  const Bundle& bundle_;
  TensorRTOptions options_;
  TensorRTDevice device_;
};

}  // namespace dq
