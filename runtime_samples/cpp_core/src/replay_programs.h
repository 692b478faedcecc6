#pragma once

#include <filesystem>
#include <map>

#include "programs.h"

namespace dq {

/// Answers what a golden recording of a whole pipeline holds, and refuses inputs that it does not expect. `PART.INPUT` and
/// `PART.OUTPUT` hold all executions of a part along the first axis; the network's are as ReplayNetwork reads them.
class ReplayPrograms : public Programs {
 public:
  explicit ReplayPrograms(std::filesystem::path recording) : recording_(std::move(recording)) {}

  std::unique_ptr<Part> open(const std::filesystem::path& program, const std::string& name) override;
  std::unique_ptr<Network> open_network(const Bundle& bundle) override;

 private:
  std::filesystem::path recording_;
};

}  // namespace dq
