#pragma once

#include <filesystem>

#include "bundle.h"
#include "network.h"
#include "safetensors.h"

namespace dq {

/// Answers what a golden recording holds, execution by execution, and refuses inputs that the recording does not expect.
class ReplayNetwork : public Network {
 public:
  ReplayNetwork(const std::filesystem::path& recording, const Bundle& bundle);

  void execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) override;
  /// Golden recordings hold no warm-up.
  void warm_up(std::size_t, const std::vector<Input>&, std::vector<float>&) override {}
  Runtime runtime() const override;

  /// Throws Error if executions of the recording are left.
  void expect_end() const;

 private:
  void expect_near(const char* what, const float* got, const float* wanted, std::size_t size) const;

  const Bundle& bundle_;
  FloatTensor inputs_, outputs_, timesteps_;
  std::size_t elements_ = 0, next_ = 0;
};

}  // namespace dq
