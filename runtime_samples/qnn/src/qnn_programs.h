#pragma once

#include "bundle.h"
#include "programs.h"
#include "qnn_device.h"

namespace dq {

/// Text encoders, network and decoder of a bundle as ONNX graphs, or as contexts of a chip.
class QnnPrograms : public Programs {
 public:
  /// The bundle outlives it. Throws Error: a library does not load, or there is no NPU.
  QnnPrograms(const Bundle& bundle, const QnnOptions& options) : bundle_(bundle), device_(options) {}

  std::unique_ptr<Part> open(const std::filesystem::path& program, const std::string& name) override;
  std::unique_ptr<Network> open_network(const Bundle& bundle) override;

 private:
  const Bundle& bundle_;
  QnnDevice device_;
};

}  // namespace dq
