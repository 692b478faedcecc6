#pragma once

// Only files that know ExecuTorch include this.

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "executorch_support.h"
#include "network.h"

namespace dq {

/// What a Tensor points to; ExecuTorch's tensors own nothing.
struct PortTensor {
  std::vector<executorch::aten::SizesType> sizes;
  std::vector<executorch::aten::DimOrderType> order;
  std::vector<executorch::aten::StridesType> strides;
  executorch::aten::ScalarType type;

  explicit PortTensor(const Port& port);
};

/// One method, and the memory that it must not outlive.
class LoadedMethod {
 public:
  /// Throws Error: the program has no such method.
  LoadedMethod(const et::Program& program, const std::string& name, std::vector<Port> inputs);
  LoadedMethod(const LoadedMethod&) = delete;
  LoadedMethod& operator=(const LoadedMethod&) = delete;

  /// `inputs` in the order of the ports.
  void execute(const std::vector<Input>& inputs);
  std::size_t outputs() const { return method_->outputs_size(); }
  /// Of the last execution. Throws Error: it is no tensor.
  const executorch::aten::Tensor& output(std::size_t i) const;

 private:
  std::string name_;
  GrowingAllocator allocator_;
  std::vector<std::vector<std::uint8_t>> buffers_;
  std::vector<et::Span<std::uint8_t>> spans_;
  std::optional<et::HierarchicalAllocator> planned_;
  std::optional<et::MemoryManager> manager_;
  std::vector<PortTensor> tensors_;
  mutable std::optional<et::Method> method_;  // last: it is destroyed first
};

/// A program in its file, mapped.
struct LoadedProgram {
  /// Throws Error: it cannot be loaded.
  explicit LoadedProgram(const std::filesystem::path& path);

  MappedLoader loader;
  et::Program program;
};

/// Once before anything else.
void start_runtime();

/// Throws Error unless the program's tensor is the bundle's port.
void expect_port(const Port& port, const et::TensorInfo& found);

}  // namespace dq
