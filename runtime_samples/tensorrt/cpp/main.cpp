// dq_run_trt --bundle FOLDER --report FOLDER [--seeds N] [--steps N] [--guidance W] [--teacher-forced on|off] [--reload] [--no-cuda-graphs]

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "bundle.h"
#include "run.h"
#include "tensorrt_network.h"

namespace {

const char* const own_help =
    "Of this program:\n\n"
    "  --reload                 keep one engine in memory, load the next when its step group comes\n"
    "  --no-cuda-graphs         enqueue every execution anew\n\n";

/// Takes `name` out of the arguments; whether it was there.
bool take_flag(std::vector<char*>& arguments, const char* name) {
  const auto rest = std::remove_if(arguments.begin() + 1, arguments.end(), [&](char* a) { return std::strcmp(a, name) == 0; });
  const bool found = rest != arguments.end();
  arguments.erase(rest, arguments.end());
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<char*> words(argv, argv + argc);
  if (words.empty()) return 2;
  dq::TensorRTOptions options;
  options.reload = take_flag(words, "--reload");
  options.graphs = !take_flag(words, "--no-cuda-graphs");
  for (const char* word : words) {
    if (std::strcmp(word, "--help") == 0) std::fputs(own_help, stdout);
  }
  return dq::run_program("dq_run_trt", static_cast<int>(words.size()), words.data(), [&](const dq::Arguments& arguments) {
    const dq::Bundle bundle = dq::open_bundle(arguments, "tensorrt");
    const dq::TensorRTDevice device;
    dq::TensorRTNetwork network(bundle, device, options);
    dq::run(arguments, bundle, network);
  });
}
