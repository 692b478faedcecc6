#include "onnx_session.h"

#include <algorithm>

#include "error.h"

namespace dq {
namespace {

using ort::api;
using ort::check;

ONNXTensorElementDataType element_type(const Port& port) {
  return port.dtype == "float32" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
}

}  // namespace

OnnxSession::OnnxSession(OrtEnv& environment, const OrtSessionOptions& options, const std::filesystem::path& graph,
                         const Bundle& bundle)
    : bundle_(bundle), name_(graph.filename().string()) {
  OrtMemoryInfo* memory = nullptr;
  check(api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "describe memory", "");
  memory_.reset(memory);
  OrtSession* session = nullptr;
  check(api().CreateSession(&environment, graph.c_str(), &options, &session), "load " + name_, export_again);
  session_.reset(session);
  for (std::size_t i = 0; i < count(true); ++i) {
    const Port* port = bundle.input(name_of(true, i));
    if (port == nullptr) throw Error(name_ + " takes '" + name_of(true, i) + "', the bundle has no such input" + export_again);
    check_port(true, i, *port);
    used_.push_back(static_cast<std::size_t>(port - bundle.inputs.data()));
  }
  if (count(false) != 1) throw Error(name_ + " has " + std::to_string(count(false)) + " outputs, allowed is 1" + export_again);
  check_port(false, 0, bundle.output);
}

std::size_t OnnxSession::count(bool of_inputs) const {
  std::size_t found = 0;
  const auto ask = of_inputs ? api().SessionGetInputCount : api().SessionGetOutputCount;
  check(ask(session_.get(), &found), "count the inputs and outputs of " + name_, export_again);
  return found;
}

std::string OnnxSession::name_of(bool of_input, std::size_t index) const {
  OrtAllocator* allocator = nullptr;  // the library's own, not released
  check(api().GetAllocatorWithDefaultOptions(&allocator), "allocate", "");
  char* text = nullptr;
  const auto ask = of_input ? api().SessionGetInputName : api().SessionGetOutputName;
  check(ask(session_.get(), index, allocator, &text), "name the inputs and outputs of " + name_, export_again);
  const std::string name = text;
  check(api().AllocatorFree(allocator, text), "free memory", "");
  return name;
}

void OnnxSession::check_port(bool of_input, std::size_t index, const Port& port) const {
  OrtTypeInfo* info = nullptr;
  const auto ask = of_input ? api().SessionGetInputTypeInfo : api().SessionGetOutputTypeInfo;
  check(ask(session_.get(), index, &info), "describe " + port.name + " of " + name_, export_again);
  const ort::Owner<OrtTypeInfo> owner(info);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // belongs to info
  check(api().CastTypeInfoToTensorInfo(info, &tensor), "describe " + port.name + " of " + name_, export_again);
  if (tensor == nullptr) throw Error(name_ + ": " + port.name + " is no tensor" + export_again);
  ONNXTensorElementDataType type{};
  std::size_t axes = 0;
  check(api().GetTensorElementType(tensor, &type), "describe " + port.name, export_again);
  check(api().GetDimensionsCount(tensor, &axes), "describe " + port.name, export_again);
  Shape shape(axes);
  check(api().GetDimensions(tensor, shape.data(), axes), "describe " + port.name, export_again);
  if (type == element_type(port) && shape == port.shape) return;
  throw Error(name_ + " has " + port.name + " as type number " + std::to_string(type) + " " + to_string(shape) +
              ", the bundle says " + port.dtype + " " + to_string(port.shape) + export_again);
}

ort::Owner<OrtValue> OnnxSession::tensor(const Port& port, const void* data, std::size_t bytes) const {
  OrtValue* value = nullptr;
  check(api().CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<void*>(data), bytes, port.shape.data(), port.shape.size(),
                                             element_type(port), &value),
        "take " + port.name + " of " + name_, export_again);
  return ort::Owner<OrtValue>(value);
}

void OnnxSession::execute(const std::vector<Input>& inputs, std::vector<float>& output) {
  std::vector<ort::Owner<OrtValue>> owners;
  std::vector<const OrtValue*> given;
  std::vector<const char*> names;
  for (const std::size_t i : used_) {
    owners.push_back(tensor(bundle_.inputs[i], inputs[i].data, inputs[i].bytes));
    given.push_back(owners.back().get());
    names.push_back(bundle_.inputs[i].name.c_str());
  }
  const std::string output_name = name_of(false, 0);
  const char* const wanted = output_name.c_str();
  const ort::Owner<OrtValue> answer = tensor(bundle_.output, output.data(), output.size() * sizeof(float));
  OrtValue* place = answer.get();  // it writes there
  check(api().Run(session_.get(), nullptr, names.data(), given.data(), given.size(), &wanted, 1, &place), "execute " + name_,
        export_again);
}

}  // namespace dq
