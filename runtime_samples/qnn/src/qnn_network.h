#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "network.h"
#include "onnx_session.h"
#include "options.h"
#include "ort.h"
#include "qnn_provider.h"

namespace dq {

/// A session per step group, all loaded; on the NPU they share one context, and with it the weights.
class QnnNetwork : public Network {
 public:
  /// Throws Error: a library or a graph does not load, or the bundle has no context for the chip.
  QnnNetwork(const Bundle& bundle, const QnnOptions& options);

  void execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) override;
  Runtime runtime() const override;

 private:
  std::filesystem::path graph_of(const Bundle& bundle, const std::string& method) const;
  ort::Owner<OrtSessionOptions> session_options() const;

  const QnnOptions options_;
  // They go from the last to the first: sessions before what they use.
  ort::Owner<OrtEnv> environment_;
  std::optional<QnnProvider> provider_;
  std::vector<std::unique_ptr<OnnxSession>> sessions_;  // by method
  double load_ms_ = 0;
};

}  // namespace dq
