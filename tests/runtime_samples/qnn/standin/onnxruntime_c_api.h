#pragma once

// What dq-run uses of ONNX Runtime's C API, for machines that have the library (of the Python wheel) and not its headers.
// The library hands out a table of functions whose places never change; here each used function stands in its place and
// `unused_N` are the others. Where the real header is found, a test compiles places.cpp against it and against this one.

#include <cstddef>
#include <cstdint>

#define ORT_API_VERSION 22

enum OrtLoggingLevel : int { ORT_LOGGING_LEVEL_WARNING = 2, ORT_LOGGING_LEVEL_ERROR = 3, ORT_LOGGING_LEVEL_FATAL = 4 };
enum ONNXTensorElementDataType : int { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7 };
enum OrtAllocatorType : int { OrtDeviceAllocator = 0 };
enum OrtMemType : int { OrtMemTypeDefault = 0 };
enum OrtHardwareDeviceType : int { OrtHardwareDeviceType_CPU = 0, OrtHardwareDeviceType_GPU = 1, OrtHardwareDeviceType_NPU = 2 };

struct OrtAllocator;
struct OrtEnv;
struct OrtEpDevice;
struct OrtHardwareDevice;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtTypeInfo;
struct OrtValue;

using OrtLoggingFunction = void (*)(void* parameter, OrtLoggingLevel level, const char* category, const char* id, const char* place,
                                    const char* message);

struct OrtApi {
  void* unused_0[2];
  const char* (*GetErrorMessage)(const OrtStatus* status) noexcept;
  void* unused_3[1];
    OrtStatus* (*CreateEnvWithCustomLogger)(OrtLoggingFunction log, void* parameter, OrtLoggingLevel level, const
      char* id, OrtEnv** out) noexcept;
  void* unused_5[2];
    OrtStatus* (*CreateSession)(const OrtEnv* env, const char* path, const OrtSessionOptions* options, OrtSession**
      out) noexcept;
  void* unused_8[1];
    OrtStatus* (*Run)(OrtSession* session, const OrtRunOptions* options, const char* const* input_names, const
      OrtValue* const* inputs, std::size_t input_count, const char* const* output_names, std::size_t output_count,
      OrtValue** outputs) noexcept;
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions** out) noexcept;
  void* unused_11[11];
  OrtStatus* (*SetSessionLogSeverityLevel)(OrtSessionOptions* options, int level) noexcept;
  void* unused_23[1];
  OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions* options, int threads) noexcept;
  void* unused_25[5];
  OrtStatus* (*SessionGetInputCount)(const OrtSession* session, std::size_t* out) noexcept;
  OrtStatus* (*SessionGetOutputCount)(const OrtSession* session, std::size_t* out) noexcept;
  void* unused_32[1];
  OrtStatus* (*SessionGetInputTypeInfo)(const OrtSession* session, std::size_t index, OrtTypeInfo** out) noexcept;
  OrtStatus* (*SessionGetOutputTypeInfo)(const OrtSession* session, std::size_t index, OrtTypeInfo** out) noexcept;
  void* unused_35[1];
    OrtStatus* (*SessionGetInputName)(const OrtSession* session, std::size_t index, OrtAllocator* allocator, char**
      out) noexcept;
    OrtStatus* (*SessionGetOutputName)(const OrtSession* session, std::size_t index, OrtAllocator* allocator, char**
      out) noexcept;
  void* unused_38[11];
    OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo* place, void* data, std::size_t bytes, const
      std::int64_t* shape, std::size_t axes, ONNXTensorElementDataType type, OrtValue** out) noexcept;
  void* unused_50[5];
  OrtStatus* (*CastTypeInfoToTensorInfo)(const OrtTypeInfo* info, const OrtTensorTypeAndShapeInfo** out) noexcept;
  void* unused_56[4];
  OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo* info, ONNXTensorElementDataType* out) noexcept;
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, std::size_t* out) noexcept;
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, std::int64_t* shape, std::size_t axes) noexcept;
  void* unused_63[6];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType allocator, OrtMemType memory, OrtMemoryInfo** out) noexcept;
  void* unused_70[6];
  OrtStatus* (*AllocatorFree)(OrtAllocator* allocator, void* memory) noexcept;
  void* unused_77[1];
  OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator** out) noexcept;
  void* unused_79[13];
  void (*ReleaseEnv)(OrtEnv* object) noexcept;
  void (*ReleaseStatus)(OrtStatus* object) noexcept;
  void (*ReleaseMemoryInfo)(OrtMemoryInfo* object) noexcept;
  void (*ReleaseSession)(OrtSession* object) noexcept;
  void (*ReleaseValue)(OrtValue* object) noexcept;
  void* unused_97[1];
  void (*ReleaseTypeInfo)(OrtTypeInfo* object) noexcept;
  void* unused_99[1];
  void (*ReleaseSessionOptions)(OrtSessionOptions* object) noexcept;
  void* unused_101[29];
  OrtStatus* (*AddSessionConfigEntry)(OrtSessionOptions* options, const char* key, const char* value) noexcept;
  void* unused_131[170];
  OrtStatus* (*RegisterExecutionProviderLibrary)(OrtEnv* env, const char* name, const char* path) noexcept;
  void* unused_302[1];
  OrtStatus* (*GetEpDevices)(const OrtEnv* env, const OrtEpDevice* const** out, std::size_t* count) noexcept;
    OrtStatus* (*SessionOptionsAppendExecutionProvider_V2)(OrtSessionOptions* options, OrtEnv* env, const OrtEpDevice*
      const* devices, std::size_t device_count, const char* const* keys, const char* const* values, std::size_t
      option_count) noexcept;
  void* unused_305[2];
  OrtHardwareDeviceType (*HardwareDevice_Type)(const OrtHardwareDevice* device) noexcept;
  void* unused_308[4];
  const char* (*EpDevice_EpName)(const OrtEpDevice* device) noexcept;
  void* unused_313[3];
  const OrtHardwareDevice* (*EpDevice_Device)(const OrtEpDevice* device) noexcept;
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version) noexcept;
  const char* (*GetVersionString)() noexcept;
};

extern "C" const OrtApiBase* OrtGetApiBase() noexcept;
