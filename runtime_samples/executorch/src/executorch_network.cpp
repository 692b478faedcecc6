#include "executorch_network.h"

#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <string>

#include "error.h"
#include "executorch_support.h"

namespace dq {
namespace {

using executorch::aten::ScalarType;

ScalarType scalar_type(const Port& port) { return port.dtype == "float32" ? ScalarType::Float : ScalarType::Long; }

void expect(const Port& port, const et::TensorInfo& found) {
  Shape shape;
  for (const std::int32_t axis : found.sizes()) shape.push_back(axis);
  if (shape == port.shape && found.scalar_type() == scalar_type(port)) return;
  throw Error("the program has " + to_string(shape) + " where the bundle says " + port.name + " " + port.dtype + " " +
              to_string(port.shape) + export_again);
}

/// What a Tensor points to; ExecuTorch's tensors own nothing.
struct PortTensor {
  std::vector<executorch::aten::SizesType> sizes;
  std::vector<executorch::aten::DimOrderType> order;
  std::vector<executorch::aten::StridesType> strides;
  ScalarType type;

  explicit PortTensor(const Port& port) : type(scalar_type(port)) {
    std::int32_t stride = 1;
    for (std::size_t i = port.shape.size(); i-- > 0;) {
      sizes.insert(sizes.begin(), static_cast<std::int32_t>(port.shape[i]));
      order.insert(order.begin(), static_cast<std::uint8_t>(i));
      strides.insert(strides.begin(), stride);
      stride *= static_cast<std::int32_t>(port.shape[i]);
    }
  }
};

/// One method, and the memory that it must not outlive.
class LoadedMethod {
 public:
  LoadedMethod(const et::Program& program, const std::string& name, const Bundle& bundle) : name_(name) {
    const et::MethodMeta meta = take(program.method_meta(name.c_str()), "find method " + name);
    check_ports(meta, bundle);
    for (std::size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      buffers_.emplace_back(static_cast<std::size_t>(take(meta.memory_planned_buffer_size(i), "plan memory of " + name)));
    }
    for (auto& buffer : buffers_) spans_.emplace_back(buffer.data(), buffer.size());
    planned_.emplace(et::Span<et::Span<std::uint8_t>>(spans_.data(), spans_.size()));
    manager_.emplace(&allocator_, &*planned_);
    // Two methods whose weights agree would share packed weights that hold the other's scales.
    et::BackendOptions<1> options;
    et::LoadBackendOptionsMap by_backend;
    et::Error error = options.set_option("weight_cache_enabled", false);
    if (error == et::Error::Ok) error = by_backend.set_options("XnnpackBackend", options.view());
    if (error != et::Error::Ok) Log::fail("set options of XNNPACK", error);
    method_.emplace(take(program.load_method(name.c_str(), &*manager_, nullptr, nullptr, &by_backend),
                         "load method " + name));
    for (const Port& port : bundle.inputs) tensors_.emplace_back(port);
  }

  void execute(const std::vector<Input>& inputs, std::vector<float>& output) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      PortTensor& port = tensors_[i];
      executorch::aten::TensorImpl tensor(port.type, static_cast<ssize_t>(port.sizes.size()), port.sizes.data(),
                                          const_cast<void*>(inputs[i].data), port.order.data(), port.strides.data());
      const et::Error error = method_->set_input(et::EValue(executorch::aten::Tensor(&tensor)), i);
      if (error != et::Error::Ok) Log::fail("set input " + std::to_string(i) + " of " + name_, error);
    }
    if (const et::Error error = method_->execute(); error != et::Error::Ok) Log::fail("execute method " + name_, error);
    const executorch::aten::Tensor& answer = method_->get_output(0).toTensor();
    if (answer.nbytes() != output.size() * sizeof(float)) {
      throw Error("method " + name_ + " answered " + std::to_string(answer.nbytes()) + " bytes, expected are " +
                  std::to_string(output.size() * sizeof(float)) + export_again);
    }
    std::memcpy(output.data(), answer.const_data_ptr(), answer.nbytes());
  }

 private:
  void check_ports(const et::MethodMeta& meta, const Bundle& bundle) const {
    if (meta.num_inputs() != bundle.inputs.size() || meta.num_outputs() != 1) {
      throw Error("method " + name_ + " has " + std::to_string(meta.num_inputs()) + " inputs and " +
                  std::to_string(meta.num_outputs()) + " outputs, the bundle says " + std::to_string(bundle.inputs.size()) +
                  " and 1" + export_again);
    }
    for (std::size_t i = 0; i < bundle.inputs.size(); ++i) {
      expect(bundle.inputs[i], take(meta.input_tensor_meta(i), "describe input " + std::to_string(i) + " of " + name_));
    }
    expect(bundle.output, take(meta.output_tensor_meta(0), "describe the output of " + name_));
  }

  std::string name_;
  GrowingAllocator allocator_;
  std::vector<std::vector<std::uint8_t>> buffers_;
  std::vector<et::Span<std::uint8_t>> spans_;
  std::optional<et::HierarchicalAllocator> planned_;
  std::optional<et::MemoryManager> manager_;
  std::vector<PortTensor> tensors_;
  std::optional<et::Method> method_;  // last: it is destroyed first
};

et::Program load_program(MappedLoader& loader) {
  return take(et::Program::load(&loader, et::Program::Verification::InternalConsistency), "load the program");
}

}  // namespace

struct ExecutorchNetwork::Loaded {
  explicit Loaded(const std::filesystem::path& path) : loader(path), program(load_program(loader)) {}

  MappedLoader loader;
  et::Program program;
  std::vector<std::unique_ptr<LoadedMethod>> methods;
};

ExecutorchNetwork::ExecutorchNetwork(const Bundle& bundle) {
  et::runtime_init();
  Log::install();
  const auto start = std::chrono::steady_clock::now();
  loaded_ = std::make_unique<Loaded>(bundle.program_path());
  for (const std::string& name : bundle.methods) {
    loaded_->methods.push_back(std::make_unique<LoadedMethod>(loaded_->program, name, bundle));
  }
  load_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

ExecutorchNetwork::~ExecutorchNetwork() = default;

void ExecutorchNetwork::execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  loaded_->methods[method]->execute(inputs, output);
}

Runtime ExecutorchNetwork::runtime() const {
  const std::string version = DQ_EXECUTORCH_VERSION;
  return {"ExecuTorch (C++)", version, "XNNPACK CPU", {{"executorch", version}}, load_ms_, false};
}

}  // namespace dq
