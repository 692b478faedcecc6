#include "qnn_network.h"

#include <chrono>

#include "crash.h"
#include "error.h"

namespace dq {

using ort::api;
using ort::check;

QnnNetwork::QnnNetwork(const Bundle& bundle, const QnnOptions& options) : options_(options) {
  const auto start = std::chrono::steady_clock::now();
  environment_ = ort::make_environment();
  std::optional<Silence> silence;
  if (options.unit != Unit::cpu) {
    silence.emplace();
    say_crashes();
  }
  if (options.unit != Unit::cpu) provider_.emplace(*environment_, options.qnn_library);
  const ort::Owner<OrtSessionOptions> for_all = session_options();
  for (const std::string& method : bundle.methods) {
    sessions_.push_back(std::make_unique<OnnxSession>(*environment_, *for_all, graph_of(bundle, method), bundle));
  }
  load_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::filesystem::path QnnNetwork::graph_of(const Bundle& bundle, const std::string& method) const {
  if (options_.unit == Unit::emulator) {
    // Its biases give back what the NPU drops of its sums; the other graph is right where nothing is dropped.
    const std::filesystem::path path = bundle.program_path() / (method + ".npu.onnx");
    if (std::filesystem::is_regular_file(path)) return path;
  }
  if (options_.unit != Unit::npu) return bundle.program_path() / (method + ".onnx");
  const std::filesystem::path path = bundle.folder / options_.chip->name / (method + "_ctx.onnx");
  if (std::filesystem::is_regular_file(path)) return path;
  throw Error("the bundle has no " + path.string() + "; export it with --soc " + options_.chip->name);
}

ort::Owner<OrtSessionOptions> QnnNetwork::session_options() const {
  OrtSessionOptions* made = nullptr;
  check(api().CreateSessionOptions(&made), "make options", "");
  ort::Owner<OrtSessionOptions> options(made);
  const auto set = [&](const char* key, const char* value) {
    check(api().AddSessionConfigEntry(made, key, value), std::string("set ") + key, "");
  };
  switch (options_.unit) {
    case Unit::cpu:
      set("session.disable_quant_qdq", "1");  // fused kernels would requantize between Q and DQ
      break;
    case Unit::emulator:
      provider_->add_to(*made, {{"soc_model", options_.chip->soc_model}, {"htp_arch", options_.chip->htp_arch}});
      break;
    case Unit::npu:
      set("ep.share_ep_contexts", "1");
      provider_->add_to(*made, {{"htp_performance_mode", "burst"}});
      break;
  }
  return options;
}

void QnnNetwork::execute(std::size_t method, const std::vector<Input>& inputs, std::vector<float>& output) {
  sessions_[method]->execute(inputs, output);
}

Runtime QnnNetwork::runtime() const {
  Runtime runtime{"ONNX Runtime (C++)", ort::version(), "CPU, not the NPU", {{"onnxruntime", ort::version()}}, load_ms_, false};
  if (!provider_) return runtime;
  runtime.emulated = options_.unit == Unit::emulator;
  runtime.compute_unit = runtime.emulated ? std::string("HTP, emulated ") + options_.chip->name
                                          : std::string("HTP, context of ") + options_.chip->name + ", burst";
  return runtime;
}

}  // namespace dq
