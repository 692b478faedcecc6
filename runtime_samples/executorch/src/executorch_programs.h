#pragma once

#include <optional>

#include "programs.h"

namespace dq {

/// Text encoders, network and decoder as .pte files. Only its source file knows ExecuTorch.
class ExecutorchPrograms : public Programs {
 public:
  /// `threads`: processor cores to use; none: ExecuTorch's choice. Throws Error.
  explicit ExecutorchPrograms(std::optional<std::size_t> threads);

  std::unique_ptr<Part> open(const std::filesystem::path& program, const std::string& name) override;
  std::unique_ptr<Network> open_network(const Bundle& bundle) override;
};

}  // namespace dq
