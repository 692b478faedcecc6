#include "tensorrt_device.h"

#include "error.h"
#include "made_of.h"

namespace dq {

TensorRTDevice::TensorRTDevice() : runtime_(nvinfer1::createInferRuntime(messages_)) {
  if (!runtime_) throw Error("TensorRT does not start; check that the driver belongs to this JetPack" + messages_.last());
}

std::unique_ptr<Engine> TensorRTDevice::read(const Bundle& bundle, const std::string& name) const {
  const std::filesystem::path plan = bundle.folder / "engines" / (name + ".plan");
  expect_own(plan, name, bundle.files);
  return std::make_unique<Engine>(*runtime_, messages_, plan);
}

}  // namespace dq
