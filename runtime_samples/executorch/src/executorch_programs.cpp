#include "executorch_programs.h"

#include <cstring>

#include "error.h"
#include "executorch_method.h"
#include "executorch_network.h"

#if __has_include(<executorch/extension/threadpool/threadpool.h>)
#include <executorch/extension/threadpool/threadpool.h>
#else
// The wheel's library has the thread pool, its headers leave it out.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(std::uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool
#endif

namespace dq {
namespace {

constexpr const char* method = "forward";

Port port_of(const et::TensorInfo& info, const std::string& name) {
  using executorch::aten::ScalarType;
  if (info.scalar_type() != ScalarType::Float && info.scalar_type() != ScalarType::Long) {
    throw Error("an input of " + name + " is neither float32 nor int64" + export_again);
  }
  Port port{name, info.scalar_type() == ScalarType::Float ? "float32" : "int64", {}};
  for (const std::int32_t axis : info.sizes()) port.shape.push_back(axis);
  return port;
}

class ExecutorchPart : public Part {
 public:
  ExecutorchPart(const std::filesystem::path& path, const std::string& name) : name_(name), file_(path) {
    const et::MethodMeta meta = take(file_.program.method_meta(method), std::string("find method ") + method + " of " + name);
    for (std::size_t i = 0; i < meta.num_inputs(); ++i) {
      ports_.push_back(port_of(take(meta.input_tensor_meta(i), "describe input " + std::to_string(i) + " of " + name), name));
    }
    loaded_ = std::make_unique<LoadedMethod>(file_.program, method, ports_);
  }

  std::vector<FloatTensor> execute(const std::vector<PartInput>& inputs, const std::vector<std::string>&) override {
    loaded_->execute(checked(inputs));
    std::vector<FloatTensor> answers;
    for (std::size_t i = 0; i < loaded_->outputs(); ++i) {
      const executorch::aten::Tensor& answer = loaded_->output(i);
      if (answer.scalar_type() != executorch::aten::ScalarType::Float) throw Error("an output of " + name_ + " is not float32" + export_again);
      FloatTensor tensor{{}, std::vector<float>(answer.nbytes() / sizeof(float))};
      for (const auto axis : answer.sizes()) tensor.shape.push_back(axis);
      std::memcpy(tensor.values.data(), answer.const_data_ptr(), answer.nbytes());
      answers.push_back(std::move(tensor));
    }
    return answers;
  }

 private:
  std::vector<Input> checked(const std::vector<PartInput>& inputs) const {
    if (inputs.size() != ports_.size()) {
      throw Error(name_ + " takes " + std::to_string(ports_.size()) + " inputs, pipeline.json says " + std::to_string(inputs.size()) + export_again);
    }
    std::vector<Input> given;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Port &port = inputs[i].port, &own = ports_[i];
      if (port.shape != own.shape || port.dtype != own.dtype) {
        throw Error(name_ + " takes " + own.dtype + " " + to_string(own.shape) + " as " + port.name + ", pipeline.json says " + port.dtype + " " +
                    to_string(port.shape) + export_again);
      }
      given.push_back({inputs[i].data, port.elements() * (port.dtype == "float32" ? sizeof(float) : sizeof(std::int64_t))});
    }
    return given;
  }

  std::string name_;
  LoadedProgram file_;
  std::vector<Port> ports_;
  std::unique_ptr<LoadedMethod> loaded_;
};

}  // namespace

ExecutorchPrograms::ExecutorchPrograms(std::optional<std::size_t> threads) {
  start_runtime();
  if (!threads) return;
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr || !pool->_unsafe_reset_threadpool(static_cast<std::uint32_t>(*threads))) {
    throw Error("ExecuTorch cannot use " + std::to_string(*threads) + " threads; change --threads");
  }
}

std::unique_ptr<Part> ExecutorchPrograms::open(const std::filesystem::path& program, const std::string& name) {
  return std::make_unique<ExecutorchPart>(program, name);
}

std::unique_ptr<Network> ExecutorchPrograms::open_network(const Bundle& bundle) { return std::make_unique<ExecutorchNetwork>(bundle); }

}  // namespace dq
