// A TensorRT whose engines replay golden answers, execution by execution, and check what they are given.
//
// A plan is text, one item a line:  replay FOLDER | warm_ups N | scratch BYTES | part NAME | in NAME DTYPE AXES SIZES... | out ...
// The folder holds inputs.f32, outputs.f32 and timesteps.f32 or step_vectors.f32, whichever the engine takes, and inputs.NAME.f32 of other inputs that
// are to be checked. The first N executions of all engines together are not replayed. An engine with a part takes and answers PART.NAME.f32 or .i64,
// execution by execution.

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "NvInfer.h"
#include "fake.h"

namespace {

using fake::require;

struct Tensor {
  std::string name;
  nvinfer1::DataType dtype;
  nvinfer1::Dims shape;
  bool is_input;

  std::size_t elements() const {
    std::size_t count = 1;
    for (int i = 0; i < shape.nbDims; ++i) count *= static_cast<std::size_t>(shape.d[i]);
    return count;
  }
  std::size_t bytes() const { return elements() * (dtype == nvinfer1::DataType::kINT64 ? 8 : 4); }
};

struct Plan {
  std::string replay, part;
  std::size_t warm_ups = 0, scratch = 0;
  std::vector<Tensor> tensors;
};

std::size_t executions = 0, alive = 0;
std::map<std::string, std::size_t> executions_of_part;

std::string read_bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream all;
  all << stream.rdbuf();
  return all.str();
}

std::vector<float> read_floats(const std::string& path) {
  const std::string bytes = read_bytes(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Plan parse(const std::string& text) {
  Plan plan;
  std::istringstream lines(text);
  for (std::string key; lines >> key;) {
    if (key == "replay") {
      lines >> plan.replay;
    } else if (key == "part") {
      lines >> plan.part;
    } else if (key == "warm_ups") {
      lines >> plan.warm_ups;
    } else if (key == "scratch") {
      lines >> plan.scratch;
    } else {
      Tensor tensor{};
      std::string dtype;
      lines >> tensor.name >> dtype >> tensor.shape.nbDims;
      for (int i = 0; i < tensor.shape.nbDims; ++i) lines >> tensor.shape.d[i];
      tensor.is_input = key == "in";
      tensor.dtype = dtype == "int64"    ? nvinfer1::DataType::kINT64
                     : dtype == "float16" ? nvinfer1::DataType::kHALF
                                          : nvinfer1::DataType::kFLOAT;
      plan.tensors.push_back(tensor);
    }
  }
  return plan;
}

void expect_near(const char* what, const float* got, const float* want, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const bool same = got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]));
    require(same || std::fabs(got[i] - want[i]) <= 1e-6F * std::fmax(1.0F, std::fabs(want[i])),
            "execution " + std::to_string(executions) + " was given another " + what);
  }
}

class Context : public nvinfer1::IExecutionContext {
 public:
  explicit Context(const Plan& plan) : plan_(plan), addresses_(plan.tensors.size()) {}

  void setDeviceMemoryV2(void* memory, std::int64_t bytes) noexcept override {
    require(bytes >= static_cast<std::int64_t>(plan_.scratch), "too little scratch memory");
    scratch_ = memory;
  }

  bool setTensorAddress(const char* name, void* address) noexcept override {
    for (std::size_t i = 0; i < addresses_.size(); ++i) {
      if (plan_.tensors[i].name != name) continue;
      addresses_[i] = address;
      return true;
    }
    return false;
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    require(scratch_ != nullptr, "no scratch memory");
    for (const void* address : addresses_) require(address != nullptr, "an input or output has no address");
    require(executed_ || !fake::is_capturing(), "capture before a first execution");
    if (++enqueued_ > fake::setting("FAKE_ENQUEUES", 1L << 30)) return false;
    fake::submit(stream, [this, life = std::weak_ptr<int>(life_)] {
      require(!life.expired(), "the context is gone");
      compute();
    });
    return true;
  }

 private:
  void compute() {
    executed_ = true;
    fake::require_memory(scratch_, plan_.scratch);
    std::memset(scratch_, 0xAB, plan_.scratch);
    for (std::size_t i = 0; i < addresses_.size(); ++i) fake::require_memory(addresses_[i], plan_.tensors[i].bytes());
    if (!plan_.part.empty()) return compute_part(executions_of_part[plan_.part]++);
    const std::size_t e = executions++ - plan_.warm_ups;  // wraps around during the warm-up
    if (executions <= plan_.warm_ups) return;
    const std::vector<float> inputs = read_floats(plan_.replay + "/inputs.f32"), outputs = read_floats(plan_.replay + "/outputs.f32");
    for (std::size_t i = 0; i < addresses_.size(); ++i) {
      const Tensor& tensor = plan_.tensors[i];
      float* at = static_cast<float*>(addresses_[i]);
      if (!tensor.is_input) std::memcpy(at, &outputs[e * tensor.elements()], tensor.bytes());
      if (tensor.name == "sample") {  // the first
        require((e + 1) * tensor.elements() <= inputs.size(), "more executions than golden answers");
        expect_near("sample", at, &inputs[e * tensor.elements()], tensor.elements());
      }
      if (tensor.is_input && tensor.dtype == nvinfer1::DataType::kFLOAT) {
        const std::vector<float> given = read_floats(plan_.replay + "/inputs." + tensor.name + ".f32");
        if (!given.empty()) expect_near(tensor.name.c_str(), at, &given[e * tensor.elements()], tensor.elements());
      }
      if (tensor.name != "timestep" && tensor.name != "step_vectors") continue;
      const bool vectors = tensor.name == "step_vectors";
      const std::vector<float> wanted = read_floats(plan_.replay + (vectors ? "/step_vectors.f32" : "/timesteps.f32"));
      expect_near(tensor.name.c_str(), at, &wanted[e * tensor.elements()], tensor.elements());
    }
  }

  void compute_part(std::size_t e) {
    for (std::size_t i = 0; i < addresses_.size(); ++i) {
      const Tensor& tensor = plan_.tensors[i];
      const bool integers = tensor.dtype == nvinfer1::DataType::kINT64;
      const std::string all = read_bytes(plan_.replay + "/" + plan_.part + "." + tensor.name + (integers ? ".i64" : ".f32"));
      require((e + 1) * tensor.bytes() <= all.size(), "more executions of " + plan_.part + " than golden answers");
      const std::string one = all.substr(e * tensor.bytes(), tensor.bytes());
      if (!tensor.is_input) {
        std::memcpy(addresses_[i], one.data(), one.size());
      } else if (integers) {
        require(std::memcmp(addresses_[i], one.data(), one.size()) == 0, plan_.part + " was given another " + tensor.name);
      } else {
        std::vector<float> wanted(tensor.elements());
        std::memcpy(wanted.data(), one.data(), one.size());
        expect_near((plan_.part + "." + tensor.name).c_str(), static_cast<const float*>(addresses_[i]), wanted.data(), wanted.size());
      }
    }
  }

  const Plan plan_;
  std::vector<void*> addresses_;
  void* scratch_ = nullptr;
  bool executed_ = false;
  long enqueued_ = 0;
  std::shared_ptr<int> life_ = std::make_shared<int>(0);
};

class Engine : public nvinfer1::ICudaEngine {
 public:
  explicit Engine(Plan plan) : plan_(std::move(plan)) { fake::log("load, alive " + std::to_string(++alive)); }
  ~Engine() override { --alive; }

  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(plan_.tensors.size()); }
  const char* getIOTensorName(std::int32_t index) const noexcept override {
    return plan_.tensors[static_cast<std::size_t>(index)].name.c_str();
  }
  nvinfer1::Dims getTensorShape(const char* name) const noexcept override { return find(name).shape; }
  nvinfer1::DataType getTensorDataType(const char* name) const noexcept override { return find(name).dtype; }
  std::int64_t getDeviceMemorySizeV2() const noexcept override { return static_cast<std::int64_t>(plan_.scratch); }
  nvinfer1::IExecutionContext* createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy strategy) noexcept override {
    require(strategy == nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED, "scratch memory is to be shared");
    return new Context(plan_);
  }

 private:
  const Tensor& find(const std::string& name) const {
    for (const Tensor& tensor : plan_.tensors) {
      if (tensor.name == name) return tensor;
    }
    require(false, "no tensor " + name);
    return plan_.tensors.front();
  }

  const Plan plan_;
};

class Runtime : public nvinfer1::IRuntime {
 public:
  explicit Runtime(nvinfer1::ILogger& logger) : logger_(logger) {}

  nvinfer1::ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) noexcept override {
    const std::string text(static_cast<const char*>(plan), bytes);
    if (text.rfind("replay ", 0) == 0) return new Engine(parse(text));
    logger_.log(nvinfer1::ILogger::Severity::kERROR, "Version tag does not match.\nStored 1, current 2");
    return nullptr;
  }

 private:
  nvinfer1::ILogger& logger_;
};

}  // namespace

nvinfer1::IRuntime* nvinfer1::createInferRuntime(ILogger& logger) noexcept {
  logger.log(ILogger::Severity::kWARNING, "a warning that nobody asked for");
  return new Runtime(logger);
}

std::int32_t getInferLibVersion() noexcept { return 100300; }
