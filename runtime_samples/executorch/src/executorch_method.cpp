#include "executorch_method.h"

#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/platform/runtime.h>

#include "error.h"

namespace dq {
namespace {

using executorch::aten::ScalarType;

ScalarType scalar_type(const Port& port) { return port.dtype == "float32" ? ScalarType::Float : ScalarType::Long; }

}  // namespace

PortTensor::PortTensor(const Port& port) : type(scalar_type(port)) {
  std::int32_t stride = 1;
  for (std::size_t i = port.shape.size(); i-- > 0;) {
    sizes.insert(sizes.begin(), static_cast<std::int32_t>(port.shape[i]));
    order.insert(order.begin(), static_cast<std::uint8_t>(i));
    strides.insert(strides.begin(), stride);
    stride *= static_cast<std::int32_t>(port.shape[i]);
  }
}

LoadedMethod::LoadedMethod(const et::Program& program, const std::string& name, std::vector<Port> inputs) : name_(name) {
  const et::MethodMeta meta = take(program.method_meta(name.c_str()), "find method " + name);
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
  method_.emplace(take(program.load_method(name.c_str(), &*manager_, nullptr, nullptr, &by_backend), "load method " + name));
  for (const Port& port : inputs) tensors_.emplace_back(port);
}

void LoadedMethod::execute(const std::vector<Input>& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    PortTensor& port = tensors_[i];
    executorch::aten::TensorImpl tensor(port.type, static_cast<ssize_t>(port.sizes.size()), port.sizes.data(),
                                        const_cast<void*>(inputs[i].data), port.order.data(), port.strides.data());
    const et::Error error = method_->set_input(et::EValue(executorch::aten::Tensor(&tensor)), i);
    if (error != et::Error::Ok) Log::fail("set input " + std::to_string(i) + " of " + name_, error);
  }
  if (const et::Error error = method_->execute(); error != et::Error::Ok) Log::fail("execute method " + name_, error);
}

const executorch::aten::Tensor& LoadedMethod::output(std::size_t i) const {
  const et::EValue& value = method_->get_output(i);
  if (!value.isTensor()) throw Error("output " + std::to_string(i) + " of method " + name_ + " is no tensor" + export_again);
  return value.toTensor();
}

LoadedProgram::LoadedProgram(const std::filesystem::path& path)
    : loader(path), program(take(et::Program::load(&loader, et::Program::Verification::InternalConsistency), "load the program")) {}

void start_runtime() {
  et::runtime_init();
  Log::install();
}

void expect_port(const Port& port, const et::TensorInfo& found) {
  Shape shape;
  for (const std::int32_t axis : found.sizes()) shape.push_back(axis);
  if (shape == port.shape && found.scalar_type() == scalar_type(port)) return;
  throw Error("the program has " + to_string(shape) + " where the bundle says " + port.name + " " + port.dtype + " " +
              to_string(port.shape) + export_again);
}

}  // namespace dq
