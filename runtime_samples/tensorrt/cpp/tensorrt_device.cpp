#include "tensorrt_device.h"

#include "error.h"

namespace dq {

TensorRTDevice::TensorRTDevice() : runtime_(nvinfer1::createInferRuntime(messages_)) {
  if (!runtime_) throw Error("TensorRT does not start; check that the driver belongs to this JetPack" + messages_.last());
}

std::unique_ptr<Engine> TensorRTDevice::read(const std::filesystem::path& bundle, const std::string& name) const {
  return std::make_unique<Engine>(*runtime_, messages_, bundle / "engines" / (name + ".plan"));
}

}  // namespace dq
