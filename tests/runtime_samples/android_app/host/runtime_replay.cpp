#include "replay_programs.h"
#include "runtime.h"

namespace dq::android {

const char* const runtime_target = any_target;

/// The recording lies beside the golden bundle.
std::unique_ptr<Programs> open_programs(const GenerateArguments&, const Bundle& bundle) {
  return std::make_unique<ReplayPrograms>(bundle.folder.parent_path() / "replay.safetensors");
}

}  // namespace dq::android
