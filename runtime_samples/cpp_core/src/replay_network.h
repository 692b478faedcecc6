#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "bundle.h"
#include "network.h"
#include "safetensors.h"

namespace dq {

/// Answers what a golden recording holds, execution by execution, and refuses inputs that the recording does not expect: the
/// sample, the time, and of the conditioning what the recording has as `inputs.NAME`.
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
  std::size_t executions() const { return outputs_.values.size() / elements_; }
  void expect_near(const char* what, const float* got, const float* wanted, std::size_t size) const;

  const Bundle& bundle_;
  FloatTensor inputs_, outputs_;
  std::vector<std::optional<FloatTensor>> conditioning_;  // by input of the bundle
  FloatTensor times_;  // timestep or step_vectors of each execution, whichever the program takes
  std::size_t elements_ = 0, next_ = 0;
};

}  // namespace dq
