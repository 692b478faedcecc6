#include "qnn_provider.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "error.h"

namespace dq {
namespace {

using ort::api;
using ort::check;

/// Under another name the plugin offers no device.
constexpr const char* provider_name = "QNNExecutionProvider";
constexpr const char* backend_file = "libQnnHtp.so";

std::filesystem::path file_of(const std::filesystem::path& path) {
  if (std::filesystem::is_regular_file(path)) return path;
  throw Error("there is no file " + path.string() + "; name Qualcomm's libonnxruntime_providers_qnn.so, with " + backend_file +
              " beside it (--qnn-library)");
}

}  // namespace

Silence::Silence() : kept_(::dup(STDOUT_FILENO)) {
  std::fflush(stdout);
  const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (kept_ >= 0 && nowhere >= 0) ::dup2(nowhere, STDOUT_FILENO);
  if (nowhere >= 0) ::close(nowhere);
}

Silence::~Silence() {
  if (kept_ < 0) return;
  std::fflush(stdout);
  ::dup2(kept_, STDOUT_FILENO);
  ::close(kept_);
}

QnnProvider::QnnProvider(OrtEnv& environment, const std::filesystem::path& library)
    : environment_(environment), backend_(file_of(library.parent_path() / backend_file)) {
  check(api().RegisterExecutionProviderLibrary(&environment, provider_name, file_of(library).c_str()), "load " + library.string(),
        "; take a plugin (2.5 or later) and an ONNX Runtime that belong together");
  const OrtEpDevice* const* devices = nullptr;
  std::size_t count = 0;
  check(api().GetEpDevices(&environment, &devices, &count), "list devices", "");
  for (std::size_t i = 0; i < count; ++i) {
    if (std::string(api().EpDevice_EpName(devices[i])) != provider_name) continue;
    const bool npu = api().HardwareDevice_Type(api().EpDevice_Device(devices[i])) == OrtHardwareDeviceType_NPU;
    if (device_ == nullptr || npu) device_ = devices[i];
    if (npu) break;
  }
  if (device_ != nullptr) return;
  throw Error("Qualcomm's plugin finds no NPU here; a phone needs Android 12 and a Snapdragon, an emulator needs Linux x86-64");
}

void QnnProvider::add_to(OrtSessionOptions& options, const Settings& settings) const {
  check(api().AddSessionConfigEntry(&options, "session.disable_cpu_ep_fallback", "1"), "set options", "");
  const std::string backend = backend_.string();
  // Quantizing at the graph's ends would be left to the CPU.
  std::vector<const char*> keys{"backend_path", "offload_graph_io_quantization"}, values{backend.c_str(), "0"};
  for (const auto& [key, value] : settings) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  check(api().SessionOptionsAppendExecutionProvider_V2(&options, &environment_, &device_, 1, keys.data(), values.data(), keys.size()),
        "use Qualcomm's plugin", "; take a plugin (2.5 or later) and an ONNX Runtime that belong together");
}

}  // namespace dq
