#pragma once

#include <memory>

#include "bundle.h"
#include "network.h"

namespace dq {

/// Every method of a .pte, loaded. Only its source file knows ExecuTorch, whose headers may need a newer C++.
class ExecutorchNetwork : public Network {
 public:
  /// Throws Error: the program does not load, or takes other inputs than the bundle says.
  explicit ExecutorchNetwork(const Bundle& bundle);
  ~ExecutorchNetwork() override;

  void execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) override;
  Runtime runtime() const override;

 private:
  struct Loaded;
  std::unique_ptr<Loaded> loaded_;
  double load_ms_ = 0;
};

}  // namespace dq
