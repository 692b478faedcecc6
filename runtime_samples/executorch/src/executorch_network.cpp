#include "executorch_network.h"

#include <chrono>
#include <cstring>
#include <string>

#include "error.h"
#include "executorch_method.h"

namespace dq {
namespace {

void check_ports(const et::Program& program, const std::string& name, const Bundle& bundle) {
  const et::MethodMeta meta = take(program.method_meta(name.c_str()), "find method " + name);
  if (meta.num_inputs() != bundle.inputs.size() || meta.num_outputs() != 1) {
    throw Error("method " + name + " has " + std::to_string(meta.num_inputs()) + " inputs and " +
                std::to_string(meta.num_outputs()) + " outputs, the bundle says " + std::to_string(bundle.inputs.size()) +
                " and 1" + export_again);
  }
  for (std::size_t i = 0; i < bundle.inputs.size(); ++i) {
    expect_port(bundle.inputs[i], take(meta.input_tensor_meta(i), "describe input " + std::to_string(i) + " of " + name));
  }
  expect_port(bundle.output, take(meta.output_tensor_meta(0), "describe the output of " + name));
}

}  // namespace

struct ExecutorchNetwork::Loaded {
  explicit Loaded(const std::filesystem::path& path) : file(path) {}

  LoadedProgram file;
  std::vector<std::unique_ptr<LoadedMethod>> methods;
};

ExecutorchNetwork::ExecutorchNetwork(const Bundle& bundle) {
  start_runtime();
  const auto start = std::chrono::steady_clock::now();
  loaded_ = std::make_unique<Loaded>(bundle.program_path());
  for (const std::string& name : bundle.methods) {
    check_ports(loaded_->file.program, name, bundle);
    loaded_->methods.push_back(std::make_unique<LoadedMethod>(loaded_->file.program, name, bundle.inputs));
  }
  load_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

ExecutorchNetwork::~ExecutorchNetwork() = default;

void ExecutorchNetwork::execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  LoadedMethod& loaded = *loaded_->methods[method];
  loaded.execute(inputs);
  const executorch::aten::Tensor& answer = loaded.output(0);
  if (answer.nbytes() != output.size() * sizeof(float)) {
    throw Error("method " + std::to_string(method) + " answered " + std::to_string(answer.nbytes()) + " bytes, expected are " +
                std::to_string(output.size() * sizeof(float)) + export_again);
  }
  std::memcpy(output.data(), answer.const_data_ptr(), answer.nbytes());
}

Runtime ExecutorchNetwork::runtime() const {
  const std::string version = DQ_EXECUTORCH_VERSION;
  return {"ExecuTorch (C++)", version, "XNNPACK CPU", {{"executorch", version}}, load_ms_, false};
}

}  // namespace dq
