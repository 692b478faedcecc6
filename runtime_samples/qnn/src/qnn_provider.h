#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ort.h"

namespace dq {

/// While it lives, stdout goes nowhere: Qualcomm's libraries write notes there.
class Silence {
 public:
  Silence();
  ~Silence();
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int kept_;  // stdout as it was, below 0 if there was none
};

/// Qualcomm's plugin in an environment of ONNX Runtime.
class QnnProvider {
 public:
  /// Throws Error: the library does not load, or offers no device here.
  QnnProvider(OrtEnv& environment, const std::filesystem::path& library);

  using Settings = std::vector<std::pair<std::string, std::string>>;

  /// The whole graph goes to the NPU, or the session refuses it. `settings` are the provider's. Throws Error.
  void add_to(OrtSessionOptions& options, const Settings& settings) const;

 private:
  OrtEnv& environment_;
  std::filesystem::path backend_;
  const OrtEpDevice* device_ = nullptr;  // belongs to the environment
};

}  // namespace dq
