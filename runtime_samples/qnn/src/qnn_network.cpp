#include "qnn_network.h"

#include <chrono>
#include <utility>

#include "error.h"

namespace dq {

QnnNetwork::QnnNetwork(const Bundle& bundle, const QnnDevice& device) : device_(device) {
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& method : bundle.methods) methods_.push_back(checked(device.open(graph_of(bundle, method), bundle.methods.size() > 1), bundle));
  load_ms_ = device.load_ms() + std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::filesystem::path QnnNetwork::graph_of(const Bundle& bundle, const std::string& method) const {
  const QnnOptions& options = device_.options();
  if (options.unit == Unit::emulator) {
    // Its biases give back what the NPU drops of its sums; the other graph is right where nothing is dropped.
    const std::filesystem::path path = bundle.program_path() / (method + ".npu.onnx");
    if (std::filesystem::is_regular_file(path)) return path;
  }
  if (options.unit != Unit::npu) return bundle.program_path() / (method + ".onnx");
  return device_.context_of(bundle.folder, method);
}

QnnNetwork::Method QnnNetwork::checked(std::unique_ptr<OnnxSession> session, const Bundle& bundle) {
  Method method{std::move(session), {}};
  const OnnxSession& graph = *method.session;
  for (const Port& own : graph.inputs()) {
    const Port* port = bundle.input(own.name);
    if (port == nullptr) throw Error(graph.name() + " takes '" + own.name + "', the bundle has no such input" + export_again);
    graph.expect(own, *port, "the bundle");
    method.used.push_back(static_cast<std::size_t>(port - bundle.inputs.data()));
  }
  if (graph.outputs().size() != 1) {
    throw Error(graph.name() + " has " + std::to_string(graph.outputs().size()) + " outputs, allowed is 1" + export_again);
  }
  graph.expect(graph.outputs()[0], bundle.output, "the bundle");
  return method;
}

void QnnNetwork::execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  std::vector<const void*> given;
  for (const std::size_t i : methods_[method].used) given.push_back(inputs[i].data);
  methods_[method].session->execute(given, {output.data()});
}

Runtime QnnNetwork::runtime() const {
  Runtime runtime{"ONNX Runtime (C++)", ort::version(), "CPU, not the NPU", {{"onnxruntime", ort::version()}}, load_ms_, false};
  const QnnOptions& options = device_.options();
  if (options.unit == Unit::cpu) return runtime;
  runtime.emulated = options.unit == Unit::emulator;
  runtime.compute_unit = runtime.emulated ? std::string("HTP, emulated ") + options.chip->name
                                          : std::string("HTP, context of ") + options.chip->name + ", burst";
  return runtime;
}

}  // namespace dq
