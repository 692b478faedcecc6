#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "network.h"
#include "onnx_session.h"
#include "qnn_device.h"

namespace dq {

/// A session per step group, all loaded; on the NPU they share one context, and with it the weights.
class QnnNetwork : public Network {
 public:
  /// The device outlives it. Throws Error: a graph does not load, its inputs and output are not the bundle's, or the bundle has no
  /// context for the chip.
  QnnNetwork(const Bundle& bundle, const QnnDevice& device);

  void execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) override;
  Runtime runtime() const override;

 private:
  struct Method {
    std::unique_ptr<OnnxSession> session;
    std::vector<std::size_t> used;  // by input of the graph its number in the bundle: a graph may leave some out
  };

  std::filesystem::path graph_of(const Bundle& bundle, const std::string& method) const;
  static Method checked(std::unique_ptr<OnnxSession> session, const Bundle& bundle);

  const QnnDevice& device_;
  std::vector<Method> methods_;
  double load_ms_ = 0;
};

}  // namespace dq
