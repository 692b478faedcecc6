// What the program for Jetson uses of TensorRT's runtime, declared for tests: engines replay answers, see fake_tensorrt.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_runtime_api.h"

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT32 = 3, kINT64 = 8 };
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };

struct Dims {
  std::int32_t nbDims;
  std::int64_t d[8];
};

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const char* text) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() = default;
  virtual void setDeviceMemoryV2(void* memory, std::int64_t bytes) noexcept = 0;
  virtual bool setTensorAddress(const char* name, void* address) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() = default;
  virtual std::int32_t getNbIOTensors() const noexcept = 0;
  virtual const char* getIOTensorName(std::int32_t index) const noexcept = 0;
  virtual Dims getTensorShape(const char* name) const noexcept = 0;
  virtual DataType getTensorDataType(const char* name) const noexcept = 0;
  virtual std::int64_t getDeviceMemorySizeV2() const noexcept = 0;
  virtual IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept = 0;
};

class IRuntime {
 public:
  virtual ~IRuntime() = default;
  virtual ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) noexcept = 0;
};

IRuntime* createInferRuntime(ILogger& logger) noexcept;

}  // namespace nvinfer1

extern "C" std::int32_t getInferLibVersion() noexcept;
