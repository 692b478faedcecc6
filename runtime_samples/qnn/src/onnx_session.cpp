#include "onnx_session.h"

#include "error.h"

namespace dq {
namespace {

using ort::api;
using ort::check;

std::string dtype_of(ONNXTensorElementDataType type) {
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) return "float32";
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) return "int64";
  return "type number " + std::to_string(type);
}

bool is_float(const Port& port) { return port.dtype == "float32"; }

std::string in_words(const Port& port) { return port.dtype + " " + to_string(port.shape); }

}  // namespace

OnnxSession::OnnxSession(OrtEnv& environment, const OrtSessionOptions& options, const std::filesystem::path& graph)
    : name_(graph.filename().string()) {
  OrtMemoryInfo* memory = nullptr;
  check(api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "describe memory", "");
  memory_.reset(memory);
  OrtSession* session = nullptr;
  check(api().CreateSession(&environment, graph.c_str(), &options, &session), "load " + name_, export_again);
  session_.reset(session);
  inputs_ = read_ports(true);
  outputs_ = read_ports(false);
}

std::vector<Port> OnnxSession::read_ports(bool of_inputs) const {
  std::vector<Port> ports;
  for (std::size_t i = 0, size = count(of_inputs); i < size; ++i) ports.push_back(describe(of_inputs, i));
  return ports;
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

Port OnnxSession::describe(bool of_input, std::size_t index) const {
  const std::string name = name_of(of_input, index);
  OrtTypeInfo* info = nullptr;
  const auto ask = of_input ? api().SessionGetInputTypeInfo : api().SessionGetOutputTypeInfo;
  check(ask(session_.get(), index, &info), "describe " + name + " of " + name_, export_again);
  const ort::Owner<OrtTypeInfo> owner(info);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // belongs to info
  check(api().CastTypeInfoToTensorInfo(info, &tensor), "describe " + name + " of " + name_, export_again);
  if (tensor == nullptr) throw Error(name_ + ": " + name + " is no tensor" + export_again);
  ONNXTensorElementDataType type{};
  std::size_t axes = 0;
  check(api().GetTensorElementType(tensor, &type), "describe " + name, export_again);
  check(api().GetDimensionsCount(tensor, &axes), "describe " + name, export_again);
  Shape shape(axes);
  check(api().GetDimensions(tensor, shape.data(), axes), "describe " + name, export_again);
  return {name, dtype_of(type), std::move(shape)};
}

void OnnxSession::expect(const Port& port, const Port& wanted, const std::string& by) const {
  if (port.dtype == wanted.dtype && port.shape == wanted.shape) return;
  throw Error(name_ + " has " + port.name + " as " + in_words(port) + ", " + by + " says " + in_words(wanted) + export_again);
}

ort::Owner<OrtValue> OnnxSession::tensor(const Port& port, const void* data) const {
  const std::size_t bytes = port.elements() * (is_float(port) ? sizeof(float) : sizeof(std::int64_t));
  OrtValue* value = nullptr;
  check(api().CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<void*>(data), bytes, port.shape.data(), port.shape.size(),
                                             is_float(port) ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value),
        "take " + port.name + " of " + name_, export_again);
  return ort::Owner<OrtValue>(value);
}

void OnnxSession::execute(const std::vector<const void*>& inputs, const std::vector<void*>& outputs) {
  std::vector<ort::Owner<OrtValue>> owners;
  std::vector<const OrtValue*> given;
  std::vector<OrtValue*> places;  // it writes there
  std::vector<const char*> input_names, output_names;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    owners.push_back(tensor(inputs_[i], inputs[i]));
    given.push_back(owners.back().get());
    input_names.push_back(inputs_[i].name.c_str());
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    owners.push_back(tensor(outputs_[i], outputs[i]));
    places.push_back(owners.back().get());
    output_names.push_back(outputs_[i].name.c_str());
  }
  check(api().Run(session_.get(), nullptr, input_names.data(), given.data(), given.size(), output_names.data(), output_names.size(), places.data()),
        "execute " + name_, export_again);
}

}  // namespace dq
