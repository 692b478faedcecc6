#include <dlfcn.h>

#include <cstdlib>

#include "error.h"
#include "options.h"
#include "qnn_programs.h"
#include "runtime.h"

#ifdef __ANDROID__
#include <sys/system_properties.h>
#endif

namespace dq::android {
namespace {

#ifdef __ANDROID__
/// The chip of this phone. Throws Error: bundles hold no contexts for it.
const Chip& chip_of_phone() {
  char model[PROP_VALUE_MAX] = "";
  __system_property_get("ro.soc.model", model);  // Android 12 and later
  if (const Chip* chip = find_chip(model)) return *chip;
  throw Error("this phone's chip is '" + std::string(model) + "', bundles are exported for " + chip_names() + "; take a bundle for ExecuTorch");
}

/// Where Android put the libraries of the app, this one among them.
std::filesystem::path folder_of_libraries() {
  Dl_info info{};
  if (::dladdr(&runtime_target, &info) == 0) throw Error("the app does not find its own libraries; install it again");
  return std::filesystem::path(info.dli_fname).parent_path();
}
#endif

}  // namespace

const char* const runtime_target = "qnn";

/// On a phone the NPU executes, elsewhere ONNX Runtime's CPU kernels.
std::unique_ptr<Programs> open_programs(const GenerateArguments& arguments, const Bundle& bundle) {
  QnnOptions options;
#ifdef __ANDROID__
  const std::filesystem::path folder = folder_of_libraries();
  ::setenv("ADSP_LIBRARY_PATH", folder.c_str(), 1);  // the DSP opens its half of the library itself
  options.unit = Unit::npu;
  options.chip = &chip_of_phone();
  options.qnn_library = folder / "libonnxruntime_providers_qnn.so";
#endif
  take_threads(arguments.threads, options);
  return std::make_unique<QnnPrograms>(bundle, options);
}

}  // namespace dq::android
