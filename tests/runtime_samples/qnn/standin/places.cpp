// Prints where each function that dq-run uses stands in ONNX Runtime's table, by whichever header the compiler finds.

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <cstdio>

#define PLACE(function) std::printf("%zu " #function "\n", offsetof(OrtApi, function) / sizeof(void*))

int main() {
  PLACE(GetErrorMessage);
  PLACE(CreateEnvWithCustomLogger);
  PLACE(CreateSession);
  PLACE(Run);
  PLACE(CreateSessionOptions);
  PLACE(SetSessionLogSeverityLevel);
  PLACE(SetIntraOpNumThreads);
  PLACE(SessionGetInputCount);
  PLACE(SessionGetOutputCount);
  PLACE(SessionGetInputTypeInfo);
  PLACE(SessionGetOutputTypeInfo);
  PLACE(SessionGetInputName);
  PLACE(SessionGetOutputName);
  PLACE(CreateTensorWithDataAsOrtValue);
  PLACE(CastTypeInfoToTensorInfo);
  PLACE(GetTensorElementType);
  PLACE(GetDimensionsCount);
  PLACE(GetDimensions);
  PLACE(CreateCpuMemoryInfo);
  PLACE(AllocatorFree);
  PLACE(GetAllocatorWithDefaultOptions);
  PLACE(ReleaseEnv);
  PLACE(ReleaseStatus);
  PLACE(ReleaseMemoryInfo);
  PLACE(ReleaseSession);
  PLACE(ReleaseValue);
  PLACE(ReleaseTypeInfo);
  PLACE(ReleaseSessionOptions);
  PLACE(AddSessionConfigEntry);
  PLACE(RegisterExecutionProviderLibrary);
  PLACE(GetEpDevices);
  PLACE(SessionOptionsAppendExecutionProvider_V2);
  PLACE(HardwareDevice_Type);
  PLACE(EpDevice_EpName);
  PLACE(EpDevice_Device);
  std::printf("%d %d %d\n", ORT_LOGGING_LEVEL_WARNING, ORT_LOGGING_LEVEL_ERROR, ORT_LOGGING_LEVEL_FATAL);
  std::printf("%d %d\n", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
  std::printf("%d %d\n", OrtDeviceAllocator, OrtMemTypeDefault);
  std::printf("%d %d\n", OrtHardwareDeviceType_CPU, OrtHardwareDeviceType_NPU);
}
