#include "qnn_device.h"

#include <chrono>

#include "error.h"

namespace dq {

using ort::api;
using ort::check;

QnnDevice::QnnDevice(const QnnOptions& options) : options_(options) {
  const auto start = std::chrono::steady_clock::now();
  environment_ = ort::make_environment();
  if (options.unit != Unit::cpu) {
    const Silence silence;
    provider_.emplace(*environment_, options.qnn_library);
  }
  load_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::filesystem::path QnnDevice::context_of(const std::filesystem::path& bundle, const std::string& name) const {
  const std::filesystem::path path = bundle / options_.chip->name / (name + "_ctx.onnx");
  if (std::filesystem::is_regular_file(path)) return path;
  throw Error("the bundle has no " + path.string() + "; export it with --soc " + options_.chip->name);
}

std::unique_ptr<OnnxSession> QnnDevice::open(const std::filesystem::path& graph, bool in_one_context) const {
  std::optional<Silence> silence;
  if (provider_) silence.emplace();
  return std::make_unique<OnnxSession>(*environment_, *session_options(in_one_context), graph);
}

ort::Owner<OrtSessionOptions> QnnDevice::session_options(bool in_one_context) const {
  OrtSessionOptions* made = nullptr;
  check(api().CreateSessionOptions(&made), "make options", "");
  ort::Owner<OrtSessionOptions> options(made);
  const auto set = [&](const char* key, const char* value) {
    check(api().AddSessionConfigEntry(made, key, value), std::string("set ") + key, "");
  };
  switch (options_.unit) {
    case Unit::cpu:
      set("session.disable_quant_qdq", "1");  // fused kernels would requantize between Q and DQ
      if (options_.threads) check(api().SetIntraOpNumThreads(made, static_cast<int>(*options_.threads)), "set threads", "; change --threads");
      break;
    case Unit::emulator:
      provider_->add_to(*made, {{"soc_model", options_.chip->soc_model}, {"htp_arch", options_.chip->htp_arch}});
      break;
    case Unit::npu:
      if (in_one_context) set("ep.share_ep_contexts", "1");
      provider_->add_to(*made, {{"htp_performance_mode", "burst"}});
      break;
  }
  return options;
}

}  // namespace dq
