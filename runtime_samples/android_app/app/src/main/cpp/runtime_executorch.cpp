#include "executorch_programs.h"
#include "runtime.h"

namespace dq::android {

const char* const runtime_target = "executorch";

std::unique_ptr<Programs> open_programs(const GenerateArguments& arguments, const Bundle&) {
  return std::make_unique<ExecutorchPrograms>(arguments.threads);
}

}  // namespace dq::android
