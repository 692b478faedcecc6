#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "onnx_session.h"
#include "options.h"
#include "ort.h"
#include "qnn_provider.h"

namespace dq {

/// ONNX Runtime with what executes: its CPU kernels, the emulator, or the NPU. One in a process.
class QnnDevice {
 public:
  /// Throws Error: a library does not load, or there is no NPU.
  explicit QnnDevice(const QnnOptions& options);

  const QnnOptions& options() const { return options_; }
  double load_ms() const { return load_ms_; }

  /// CHIP/NAME_ctx.onnx of a bundle. Throws Error: it has none for the chip.
  std::filesystem::path context_of(const std::filesystem::path& bundle, const std::string& name) const;

  /// `in_one_context`: on the NPU it shares context and weights with the others of its kind. Throws Error: the graph does not load.
  std::unique_ptr<OnnxSession> open(const std::filesystem::path& graph, bool in_one_context) const;

 private:
  ort::Owner<OrtSessionOptions> session_options(bool in_one_context) const;

  const QnnOptions options_;
  // They go from the last to the first.
  ort::Owner<OrtEnv> environment_;
  std::optional<QnnProvider> provider_;
  double load_ms_ = 0;
};

}  // namespace dq
